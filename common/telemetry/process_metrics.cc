#include "common/telemetry/process_metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace tandem {
namespace {

prometheus::MetricFamily One(std::string name, std::string help, prometheus::MetricType type,
                             double value) {
  prometheus::ClientMetric metric;
  if (type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  return {std::move(name), std::move(help), type, {metric}};
}

double NumOpenFds() {
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return 0;
  int count = -3;  // ".", "..", and the folder itself
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count;
}

// The fields of /proc/self/stat after the name, which may hold anything.
std::vector<std::string> StatFields() {
  std::ifstream file("/proc/self/stat");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const size_t end = text.rfind(") ");
  if (end == std::string::npos) return {};
  return absl::StrSplit(text.substr(end + 2), ' ');
}

double Field(const std::vector<std::string>& fields, size_t index) {
  double value = 0;
  if (index >= fields.size() || !absl::SimpleAtod(fields[index], &value)) return 0;
  return value;
}

double BootTime() {
  std::ifstream file("/proc/stat");
  std::string key;
  for (std::string line; std::getline(file, line);) {
    double seconds = 0;
    if (line.rfind("btime ", 0) == 0 && absl::SimpleAtod(line.substr(6), &seconds)) return seconds;
  }
  return 0;
}

}  // namespace

std::vector<prometheus::MetricFamily> ProcessMetrics::Collect() const {
  using Type = prometheus::MetricType;
  // proc(5): fields counted from 3, "state", which is our index 0.
  const std::vector<std::string> stat = StatFields();
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const double page = static_cast<double>(sysconf(_SC_PAGESIZE));
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  return {
      One("process_cpu_seconds_total", "User and system time, in seconds.", Type::Counter,
          (Field(stat, 11) + Field(stat, 12)) / ticks),
      One("process_virtual_memory_bytes", "Virtual memory.", Type::Gauge, Field(stat, 20)),
      One("process_resident_memory_bytes", "Resident memory.", Type::Gauge, Field(stat, 21) * page),
      One("process_start_time_seconds", "Start, in seconds since 1970.", Type::Gauge,
          BootTime() + Field(stat, 19) / ticks),
      One("process_threads", "Threads.", Type::Gauge, Field(stat, 17)),
      One("process_open_fds", "Open file descriptors.", Type::Gauge, NumOpenFds()),
      One("process_max_fds", "File descriptors at most.", Type::Gauge,
          static_cast<double>(limit.rlim_cur)),
  };
}

}  // namespace tandem
