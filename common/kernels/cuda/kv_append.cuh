// Writes one head's key or value of one position.
#pragma once

#include "common/kernels/cuda/kv_format.cuh"

namespace tandem::cuda {

// The scale of a lane's block as it is stored, and the codes of its dims (biased).
template <KvType T, int kHeadDim>
struct QuantizedHead {
  static constexpr int kPerLane = kHeadDim / 32;
  uint32_t codes[kPerLane];
  __half scale;

  __device__ __forceinline__ explicit QuantizedHead(const HeadVector<kHeadDim>& vector) {
    const float extreme = vector.BlockExtreme();
    const bool is_finite = fabsf(extreme) <= 3.0e38f;
    const float limit = T == KvType::k4 ? -8.0f : 127.0f;
    scale = __float2half_rn(is_finite ? extreme / limit : 0.0f);
    if (__hisinf(scale)) scale = __float2half_rn(0.0f);  // beyond f16, as good as not finite
    const float step = __half2float(scale);
    const float inverse = step != 0.0f ? __fdividef(1.0f, step) : 0.0f;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const float scaled = inverse != 0.0f ? vector.values[i] * inverse : 0.0f;
      if constexpr (T == KvType::k4) {
        codes[i] = __float2int_rn(fminf(fmaxf(scaled + 8.0f, 0.0f), 15.0f));
      } else {
        codes[i] = __float2int_rn(fminf(fmaxf(scaled, -127.0f), 127.0f)) + 128;
      }
    }
  }
  __device__ __forceinline__ void StoreScale(uint8_t* scales, int slot, int lane) const {
    constexpr int kLanes = 32 / kPerLane;  // of a block
    if (lane % kLanes != 0) return;
    reinterpret_cast<__half*>(scales)[slot * kPerLane + lane / kLanes] = scale;
  }
};

// ORs a value over `kLanes` neighbouring lanes.
template <int kLanes>
__device__ __forceinline__ uint32_t OrLanes(uint32_t value) {
#pragma unroll
  for (int stride = 1; stride < kLanes; stride *= 2) {
    value |= __shfl_xor_sync(0xffffffffu, value, stride);
  }
  return value;
}

// `slot`: the position in its page. `codes`: the region of the head.
template <KvType T, int kHeadDim>
__device__ __forceinline__ void StoreKey(const HeadVector<kHeadDim>& vector, uint8_t* codes,
                                         uint8_t* scales, int slot, int lane) {
  constexpr int kPerLane = kHeadDim / 32;
  constexpr int kBlocks = kHeadDim / 32;
  const int dim = lane * kPerLane;
  const int block = dim / 32;
  const int t = dim % 32 / 8;
  uint8_t* target = codes + slot * (kHeadDim * kBitsOf(T) / 8);
  if constexpr (T == KvType::kF16) {
#pragma unroll
    for (int i = 0; i < kPerLane; i += 2) {
      uint32_t* words = reinterpret_cast<uint32_t*>(target) + (t * kBlocks + block) * 4;
      words[(dim % 8 + i) / 2] = HalfPair(vector.values[i], vector.values[i + 1]);
    }
  } else {
    const QuantizedHead<T, kHeadDim> head(vector);
    head.StoreScale(scales, slot, lane);
    uint32_t word = 0;
    uint32_t* words = reinterpret_cast<uint32_t*>(target);
    if constexpr (T == KvType::k4) {
      // Dims 2 * i and 2 * i + 1 in nibbles i and i + 4.
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        const int d = dim % 8 + i;
        word |= head.codes[i] << (4 * (d / 2 + d % 2 * 4));
      }
      word = OrLanes<8 / kPerLane>(word);
      if (dim % 8 == 0) words[t * kBlocks + block] = word;
    } else {
      // Dims 0, 2, 1, 3 of four in bytes 0..3.
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        const int d = dim % 4 + i;
        word |= head.codes[i] << (8 * (d / 2 + d % 2 * 2));
      }
      word = OrLanes<4 / kPerLane>(word);
      if (dim % 4 == 0) words[(t * kBlocks + block) * 2 + dim % 8 / 4] = word;
    }
  }
}

template <KvType T, int kHeadDim>
__device__ __forceinline__ void StoreValue(const HeadVector<kHeadDim>& vector, uint8_t* codes,
                                           uint8_t* scales, int slot, int lane) {
  constexpr int kPerLane = kHeadDim / 32;
  const int dim = lane * kPerLane;
  const int p = slot % 16;
  const int t = p % 8 / 2;
  uint8_t* tile = codes + (slot / 16) * (16 * kHeadDim * kBitsOf(T) / 8);
  constexpr int kLaneBytes = kHeadDim / 2 * kBitsOf(T) / 8;  // of one lane in a tile
  if constexpr (T == KvType::kF16) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int d = dim + i;
      __half* target = reinterpret_cast<__half*>(tile + (d % 8 * 4 + t) * kLaneBytes);
      target[d / 8 * 4 + p % 2 + p / 8 * 2] = __float2half_rn(vector.values[i]);
    }
  } else {
    const QuantizedHead<T, kHeadDim> head(vector);
    head.StoreScale(scales, slot, lane);
    const int byte = p % 2 * 2 + p / 8;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int d = dim + i;
      uint8_t* target = tile + (d % 8 * 4 + t) * kLaneBytes;
      if constexpr (T == KvType::k4) {
        // Dims d and d + 8 share a byte.
        const uint32_t upper = __shfl_down_sync(0xffffffffu, head.codes[i], 8 / kPerLane);
        if (d % 16 < 8) {
          target[d / 16 * 4 + byte] = static_cast<uint8_t>(head.codes[i] | upper << 4);
        }
      } else {
        target[d / 8 * 4 + byte] = static_cast<uint8_t>(head.codes[i]);
      }
    }
  }
}

}  // namespace tandem::cuda
