// How much memory this machine, or this container, has.
#pragma once

#include <cstdint>
#include <string>

namespace tandem {

inline constexpr double kMiB = 1024.0 * 1024.0;
inline constexpr double kGiB = 1024.0 * kMiB;

struct HostMemory {
  int64_t total_bytes = 0;
  int64_t available_bytes = 0;  // without swapping; files in memory that can be dropped count
};

// Within the limits of this process's cgroup and of those above it, version 1 or 2. Zeros
// where the system does not say. `root` is in place of "/", for tests.
HostMemory ReadHostMemory(const std::string& root = "");

// How many processes of this cgroup the kernel has killed for want of memory; of the whole
// machine where there is no cgroup that counts. 0 where the system does not say.
int64_t CountOomKills(const std::string& root = "");

}  // namespace tandem
