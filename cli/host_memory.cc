#include "cli/host_memory.h"

#include <algorithm>
#include <fstream>
#include <string>

namespace tandem {
namespace {

// The first number of a file; -1 when there is none ("max", or no such file).
int64_t ReadNumber(const char* path) {
  std::ifstream file(path);
  int64_t number = -1;
  return file >> number ? number : -1;
}

}  // namespace

HostMemory ReadHostMemory() {
  HostMemory memory;
  std::ifstream file("/proc/meminfo");
  std::string key, unit;
  int64_t value_kib = 0;
  while (file >> key >> value_kib) {
    if (key == "MemTotal:") memory.total_bytes = value_kib * 1024;
    if (key == "MemAvailable:") memory.available_bytes = value_kib * 1024;
    std::getline(file, unit);
  }
  const int64_t limit = ReadNumber("/sys/fs/cgroup/memory.max");
  const int64_t used = ReadNumber("/sys/fs/cgroup/memory.current");
  if (limit > 0 && used >= 0) {
    memory.total_bytes = std::min(memory.total_bytes, limit);
    memory.available_bytes = std::min(memory.available_bytes, std::max<int64_t>(limit - used, 0));
  }
  return memory;
}

}  // namespace tandem
