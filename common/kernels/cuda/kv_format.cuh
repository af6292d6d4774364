// The bytes of keys and values in a page, and how they become tensor-core operands.
//
// K: position by position; lane t of a group of four has of each block of 32 dims the eight
// dims 8 * t .. 8 * t + 7, its blocks side by side: [position][t][block][8 dims].
// V: tile of 16 positions by tile; lane 4 * g + t has of each 8 dims the dim g at positions
// 2 * t, 2 * t + 1, 2 * t + 8, 2 * t + 9: [tile][lane][dim / 8][4 positions].
// k4: nibbles, value (n - 8) * scale. k8: bytes, value (b - 128) * scale. No scale at f16.
// A block that is not finite is stored as zeros: its own row is not finite anyway, and no
// other row may be spoilt by it (0 * NaN).
#pragma once

#include "common/kernels/cuda/mma.cuh"
#include "common/kernels/kv_layout.h"

namespace tandem::cuda {

constexpr int kBitsOf(KvType type) {
  return type == KvType::k4 ? 4 : (type == KvType::k8 ? 8 : 16);
}

__device__ __forceinline__ uint32_t SubtractHalves(uint32_t value, uint32_t constant) {
  const __half2 result = __hsub2(*reinterpret_cast<const __half2*>(&value),
                                 *reinterpret_cast<const __half2*>(&constant));
  return *reinterpret_cast<const uint32_t*>(&result);
}

// Nibbles i and i + 4 of a word, minus 8, as two halves: 1024 + n in bits and minus 1032, or,
// for the upper nibble of a byte, 1024 + 16 * n and times 1/16 minus 72. Both are exact.
__device__ __forceinline__ uint32_t NibblePair(uint32_t word, int i) {
  const uint32_t byte = word >> (8 * (i / 2));
  if (i % 2 == 0) return SubtractHalves((byte & 0x000f000fu) | 0x64006400u, 0x64086408u);
  const uint32_t biased = (byte & 0x00f000f0u) | 0x64006400u;
  const __half2 result = __hfma2(*reinterpret_cast<const __half2*>(&biased),
                                 __float2half2_rn(0.0625f), __float2half2_rn(-72.0f));
  return *reinterpret_cast<const uint32_t*>(&result);
}
// Bytes 0 and 2 (i = 0) or 1 and 3 of a word as two halves, minus 1152.
__device__ __forceinline__ uint32_t BytePair(uint32_t word, int i) {
  return SubtractHalves(__byte_perm(word, 0x64646464u, i == 0 ? 0x4240 : 0x4341), 0x64806480u);
}

// The part of one position's K that a lane holds: of each block the operands of two
// instructions of depth 16.
template <KvType T, int kHeadDim>
struct KeyWords {
  static constexpr int kBlocks = kHeadDim / 32;
  static constexpr int kWords = kBlocks * kBitsOf(T) / 4;
  uint32_t words[kWords];

  __device__ __forceinline__ void Load(const uint8_t* codes, int slot, int t) {
    const uint8_t* source = codes + slot * (kHeadDim * kBitsOf(T) / 8) + t * kWords * 4;
    if constexpr (kWords == 2) {
      *reinterpret_cast<uint2*>(words) = *reinterpret_cast<const uint2*>(source);
    } else {
#pragma unroll
      for (int i = 0; i < kWords / 4; ++i) {
        reinterpret_cast<uint4*>(words)[i] = reinterpret_cast<const uint4*>(source)[i];
      }
    }
  }
  // Operands of instruction `step` (0, 1) of `block`.
  __device__ __forceinline__ uint2 Operands(int block, int step) const {
    if constexpr (T == KvType::k4) {
      return make_uint2(NibblePair(words[block], 2 * step), NibblePair(words[block], 2 * step + 1));
    } else if constexpr (T == KvType::k8) {
      const uint32_t word = words[2 * block + step];
      return make_uint2(BytePair(word, 0), BytePair(word, 1));
    } else {
      return make_uint2(words[4 * block + 2 * step], words[4 * block + 2 * step + 1]);
    }
  }
};

// The part of a tile's V that a lane holds.
template <KvType T, int kHeadDim>
struct ValueWords {
  static constexpr int kWords = kHeadDim / 8 * kBitsOf(T) / 8;
  uint32_t words[kWords];

  __device__ __forceinline__ void Load(const uint8_t* codes, int slot, int lane) {
    const uint8_t* source =
        codes + (slot / 16) * (16 * kHeadDim * kBitsOf(T) / 8) + lane * kWords * 4;
#pragma unroll
    for (int i = 0; i < kWords / 4; ++i) {
      reinterpret_cast<uint4*>(words)[i] = reinterpret_cast<const uint4*>(source)[i];
    }
  }
  // Takes out positions of an f16 tile: `first` and `second` mask 2 * t (+1), and the same + 8.
  __device__ __forceinline__ void Mask(uint32_t first, uint32_t second) {
    static_assert(T == KvType::kF16);
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
      words[2 * n] &= first;
      words[2 * n + 1] &= second;
    }
  }
  // Operands of the 8 dims `n`: positions 2 * t (+1), and the same + 8.
  __device__ __forceinline__ uint2 Operands(int n) const {
    if constexpr (T == KvType::k4) {
      const int high = n % 2;
      return make_uint2(NibblePair(words[n / 2], high), NibblePair(words[n / 2], 2 + high));
    } else if constexpr (T == KvType::k8) {
      return make_uint2(BytePair(words[n], 0), BytePair(words[n], 1));
    } else {
      return make_uint2(words[2 * n], words[2 * n + 1]);
    }
  }
};

// The scales of two neighbouring positions, all blocks.
template <int kHeadDim>
struct ScalePair {
  static constexpr int kWords = kHeadDim / 32;  // two halves each; positions follow each other
  uint32_t words[kWords];

  // Takes out a position.
  __device__ __forceinline__ void Drop(int position) {
#pragma unroll
    for (int i = 0; i < kWords / 2; ++i) words[position * (kWords / 2) + i] = 0;
  }

  __device__ __forceinline__ void Load(const uint8_t* scales, int slot) {
    const uint8_t* source = scales + slot * (kHeadDim / 32) * 2;
    if constexpr (kWords == 4) {
      *reinterpret_cast<uint4*>(words) = *reinterpret_cast<const uint4*>(source);
    } else {
      *reinterpret_cast<uint2*>(words) = *reinterpret_cast<const uint2*>(source);
    }
  }
  __device__ __forceinline__ uint16_t Bits(int position, int block) const {
    const int index = position * (kHeadDim / 32) + block;
    return static_cast<uint16_t>(words[index / 2] >> (16 * (index % 2)));
  }
  __device__ __forceinline__ float Float(int position, int block) const {
    return __half2float(__ushort_as_half(Bits(position, block)));
  }
  // (first position, second position) as halves.
  __device__ __forceinline__ uint32_t Halves(int block) const {
    return __byte_perm(words[block / 2], words[kWords / 2 + block / 2],
                       block % 2 == 0 ? 0x5410 : 0x7632);
  }
};

// A vector of a head, kHeadDim / 32 consecutive dims a lane.
template <int kHeadDim>
struct HeadVector {
  static constexpr int kPerLane = kHeadDim / 32;
  float values[kPerLane];

  // `source`: aligned like kPerLane floats.
  __device__ __forceinline__ void Load(const float* source, int lane) {
    if constexpr (kPerLane == 4) {
      const float4 read = *reinterpret_cast<const float4*>(source + lane * 4);
      values[0] = read.x;
      values[1] = read.y;
      values[2] = read.z;
      values[3] = read.w;
    } else {
      const float2 read = *reinterpret_cast<const float2*>(source + lane * 2);
      values[0] = read.x;
      values[1] = read.y;
    }
  }
  // Rotates dims 2 * i and 2 * i + 1 below rope_dim by angle i.
  __device__ __forceinline__ void Rope(const float2* angles, int rope_dim, int lane) {
#pragma unroll
    for (int i = 0; i < kPerLane; i += 2) {
      const int dim = lane * kPerLane + i;
      if (dim >= rope_dim) continue;
      const float2 angle = angles[dim / 2];
      const float x = values[i];
      const float y = values[i + 1];
      values[i] = __fmaf_rn(x, angle.x, -__fmul_rn(y, angle.y));
      values[i + 1] = __fmaf_rn(x, angle.y, __fmul_rn(y, angle.x));
    }
  }
  // The Hadamard transform, its own inverse.
  __device__ __forceinline__ void Hadamard(int lane) {
#pragma unroll
    for (int stride = 1; stride < kPerLane; stride *= 2) {
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        if (i & stride) continue;
        const float x = values[i];
        const float y = values[i + stride];
        values[i] = x + y;
        values[i + stride] = x - y;
      }
    }
#pragma unroll
    for (int stride = 1; stride < 32; stride *= 2) {
      const float sign = (lane & stride) ? -1.0f : 1.0f;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        values[i] = __fmaf_rn(sign, values[i], __shfl_xor_sync(0xffffffffu, values[i], stride));
      }
    }
    const float norm = rsqrtf(static_cast<float>(kHeadDim));
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) values[i] *= norm;
  }
  // Over the lanes of one block of 32 dims: the value of largest magnitude, sign kept; NaN
  // when one is.
  __device__ __forceinline__ float BlockExtreme() const {
    float extreme = values[0];
    float bad = values[0] - values[0];
#pragma unroll
    for (int i = 1; i < kPerLane; ++i) {
      if (fabsf(values[i]) > fabsf(extreme)) extreme = values[i];
      bad += values[i] - values[i];
    }
#pragma unroll
    for (int stride = 1; stride < 32 / kPerLane; stride *= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, extreme, stride);
      const bool is_larger =
          fabsf(other) > fabsf(extreme) || (fabsf(other) == fabsf(extreme) && other > extreme);
      extreme = is_larger ? other : extreme;
      bad += __shfl_xor_sync(0xffffffffu, bad, stride);
    }
    return extreme + bad;
  }
};

}  // namespace tandem::cuda
