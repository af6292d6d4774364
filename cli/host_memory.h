// How much memory this machine, or this container, has.
#pragma once

#include <cstdint>

namespace tandem {

inline constexpr double kMiB = 1024.0 * 1024.0;
inline constexpr double kGiB = 1024.0 * kMiB;

struct HostMemory {
  int64_t total_bytes = 0;
  int64_t available_bytes = 0;  // without swapping; within the cgroup's limit
};

// Zeros where the system does not say.
HostMemory ReadHostMemory();

}  // namespace tandem
