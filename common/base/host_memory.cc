#include "common/base/host_memory.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace tandem {
namespace {

// The names of one version of cgroups.
struct CgroupFiles {
  const char* mount;
  const char* limit;
  const char* usage;
  const char* droppable;  // the key in memory.stat
  const char* events;     // has the line "oom_kill N"
};
constexpr CgroupFiles kVersion1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                   "memory.usage_in_bytes", "total_inactive_file",
                                   "memory.oom_control"};
constexpr CgroupFiles kVersion2 = {"/sys/fs/cgroup", "memory.max", "memory.current",
                                   "inactive_file", "memory.events"};

// The number at the beginning of a file; none for "max", or without the file.
std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

// The value of `key` in lines of "key value"; none without it.
std::optional<int64_t> FindValue(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string name, rest;
  for (int64_t value = 0; file >> name >> value; std::getline(file, rest)) {
    if (name == key) return value;
  }
  return std::nullopt;
}

int64_t ReadValue(const std::string& path, const std::string& key) {
  return FindValue(path, key).value_or(0);
}

// Narrows `memory` to what the cgroup in `folder` allows; no limit, no change.
void Narrow(const std::string& folder, const CgroupFiles& files, HostMemory* memory) {
  const std::optional<int64_t> limit = ReadNumber(absl::StrCat(folder, "/", files.limit));
  const std::optional<int64_t> usage = ReadNumber(absl::StrCat(folder, "/", files.usage));
  if (!limit || !usage || *limit >= memory->total_bytes) return;
  const int64_t droppable = ReadValue(absl::StrCat(folder, "/memory.stat"), files.droppable);
  memory->total_bytes = *limit;
  memory->available_bytes =
      std::min(memory->available_bytes, std::max<int64_t>(*limit - *usage + droppable, 0));
}

// The cgroup at `path` and all above it. In a container the path may be the host's, which
// is not there: its own cgroup is then the top one.
void NarrowAll(const std::string& mount, std::string path, const CgroupFiles& files,
               HostMemory* memory) {
  while (!path.empty()) {
    Narrow(absl::StrCat(mount, path), files, memory);
    path.resize(path.rfind('/'));
  }
  Narrow(mount, files, memory);
}

// Where this process is in one hierarchy; `path` is "" or begins with a slash.
struct OwnCgroup {
  std::string path;
  const CgroupFiles* files = nullptr;
};

std::vector<OwnCgroup> OwnCgroups(const std::string& root) {
  std::vector<OwnCgroup> groups;
  std::ifstream cgroups(absl::StrCat(root, "/proc/self/cgroup"));
  for (std::string line; std::getline(cgroups, line);) {
    // "4:memory:/a/b" in version 1, "0::/a/b" in version 2; a path may hold colons.
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3 || parts[2].empty() || parts[2][0] != '/') continue;
    const std::string path = parts[2] == "/" ? "" : parts[2];
    const std::vector<std::string> controllers = absl::StrSplit(parts[1], ',');
    const bool is_memory =
        std::find(controllers.begin(), controllers.end(), "memory") != controllers.end();
    if (is_memory) groups.push_back({path, &kVersion1});
    if (parts[0] == "0") groups.push_back({path, &kVersion2});
  }
  return groups;
}

}  // namespace

HostMemory ReadHostMemory(const std::string& root) {
  const std::string meminfo = absl::StrCat(root, "/proc/meminfo");
  HostMemory memory = {.total_bytes = ReadValue(meminfo, "MemTotal:") * 1024,
                       .available_bytes = ReadValue(meminfo, "MemAvailable:") * 1024};
  for (const OwnCgroup& group : OwnCgroups(root)) {
    NarrowAll(absl::StrCat(root, group.files->mount), group.path, *group.files, &memory);
  }
  return memory;
}

int64_t CountOomKills(const std::string& root) {
  std::optional<int64_t> kills;
  for (const OwnCgroup& group : OwnCgroups(root)) {
    const std::string mount = absl::StrCat(root, group.files->mount);
    for (const std::string& folder : {mount + group.path, mount}) {
      const auto found = FindValue(absl::StrCat(folder, "/", group.files->events), "oom_kill");
      if (!found.has_value()) continue;
      kills = std::max(kills.value_or(0), *found);
      break;
    }
  }
  return kills ? *kills : ReadValue(absl::StrCat(root, "/proc/vmstat"), "oom_kill");
}

}  // namespace tandem
