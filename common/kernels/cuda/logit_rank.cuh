// Logits and their ids as integers that order like them.
#pragma once

#include <cstdint>

namespace tandem::cuda {

// Orders like the floats, then smaller ids before larger ones.
__device__ __forceinline__ uint64_t Rank(float logit, uint32_t id) {
  const uint32_t bits = __float_as_uint(logit);
  const uint32_t ordered = (bits & 0x80000000u) ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(ordered) << 32 | static_cast<uint32_t>(~id);
}

__device__ __forceinline__ float LogitOfRank(uint64_t rank) {
  const uint32_t ordered = static_cast<uint32_t>(rank >> 32);
  return __uint_as_float((ordered & 0x80000000u) ? ordered & 0x7fffffffu : ~ordered);
}

__device__ __forceinline__ uint32_t IdOfRank(uint64_t rank) { return ~static_cast<uint32_t>(rank); }

}  // namespace tandem::cuda
