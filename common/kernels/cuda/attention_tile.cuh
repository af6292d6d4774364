// What a warp does with one tile of 16 positions. Running maxima and sums as in Milakov and
// Gimelshein (2018) and FlashAttention (Dao et al. 2022); everything in base 2.
#pragma once

#include <cmath>

#include "common/kernels/cuda/attention.h"
#include "common/kernels/cuda/kv_format.cuh"

namespace tandem::cuda {

// Halves of a query row in shared memory; the padding spreads rows over the banks.
constexpr int QueryStride(int head_dim) { return head_dim + 32; }

// 16 queries of a warp: lane 4 * g + t has rows g and g + 8 ([0] and [1]).
template <int kHeadDim>
struct WarpState {
  float out[kHeadDim / 8][4] = {};  // columns 8 * n + 2 * t (+1); rows g, g, g + 8, g + 8
  float max[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0.0f, 0.0f};  // of this lane's columns only
};

__device__ __forceinline__ float Exp2(float value) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}

// The factor that takes a sum with maximum `from` to maximum `to`.
__device__ __forceinline__ float Rescale(float from, float to) {
  return from == to ? 1.0f : Exp2(from - to);
}

// What a lane needs of a tile's keys. `region`: of a head in a page.
template <KvType T, int kHeadDim>
struct TileKeys {
  KeyWords<T, kHeadDim> words[2];  // 8 positions each
  ScalePair<kHeadDim> scales[2];

  __device__ __forceinline__ void LoadWords(const uint8_t* region, int slot, int lane) {
    words[0].Load(region, slot + lane / 4, lane % 4);
    words[1].Load(region, slot + lane / 4 + 8, lane % 4);
  }
  __device__ __forceinline__ void LoadScales(const uint8_t* region, int page_positions, int slot,
                                             int lane) {
    if constexpr (T != KvType::kF16) {
      const uint8_t* stored = region + page_positions * (kHeadDim * kBitsOf(T) / 8);
      scales[0].Load(stored, slot + lane % 4 * 2);
      scales[1].Load(stored, slot + lane % 4 * 2 + 8);
    }
  }
};

// ... and of its values.
template <KvType T, int kHeadDim>
struct TileValues {
  ValueWords<T, kHeadDim> words;
  ScalePair<kHeadDim> scales[2];  // positions 2 * t (+1), and the same + 8

  __device__ __forceinline__ void Load(const uint8_t* region, int page_positions, int slot,
                                       int lane) {
    words.Load(region, slot, lane);
    if constexpr (T != KvType::kF16) {
      const uint8_t* stored = region + page_positions * (kHeadDim * kBitsOf(T) / 8);
      scales[0].Load(stored, slot + lane % 4 * 2);
      scales[1].Load(stored, slot + lane % 4 * 2 + 8);
    }
  }
  // Takes out the positions after the first `count` of the tile: they were never written, and
  // may be anything.
  __device__ __forceinline__ void Cut(int count, int lane) {
    const int first = lane % 4 * 2;
    if constexpr (T == KvType::kF16) {
      const auto mask = [&](int at) {
        return (at < count ? 0xffffu : 0u) | (at + 1 < count ? 0xffff0000u : 0u);
      };
      words.Mask(mask(first), mask(first + 8));
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (first + i / 2 * 8 + i % 2 >= count) scales[i / 2].Drop(i % 2);
      }
    }
  }
};

// Scores of 16 queries at 16 positions: [8 positions][as MmaHalf's d].
template <KvType T, int kHeadDim>
__device__ __forceinline__ void Scores(const __half* queries, const TileKeys<T, kHeadDim>& keys,
                                       int lane, float (&scores)[2][4]) {
  const int g = lane / 4;
  const int t = lane % 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) scores[0][i] = scores[1][i] = 0.0f;
#pragma unroll
  for (int block = 0; block < kHeadDim / 32; ++block) {
    const __half* source = queries + g * QueryStride(kHeadDim) + block * 32 + t * 8;
    const uint4 low = *reinterpret_cast<const uint4*>(source);
    const uint4 high = *reinterpret_cast<const uint4*>(source + 8 * QueryStride(kHeadDim));
    const uint32_t first[4] = {low.x, high.x, low.y, high.y};
    const uint32_t second[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const uint2 k0 = keys.words[n].Operands(block, 0);
      const uint2 k1 = keys.words[n].Operands(block, 1);
      float dot[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      MmaHalf(dot, first, k0.x, k0.y);
      MmaHalf(dot, second, k1.x, k1.y);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if constexpr (T == KvType::kF16) {
          scores[n][i] += dot[i];
        } else {
          scores[n][i] = __fmaf_rn(keys.scales[n].Float(i % 2, block), dot[i], scores[n][i]);
        }
      }
    }
  }
}

// Hides positions that a query does not see. `limits`: the last that rows g and g + 8 see,
// counted from the tile's first.
__device__ __forceinline__ void Hide(const int (&limits)[2], int lane, float (&scores)[2][4]) {
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (n * 8 + lane % 4 * 2 + i % 2 > limits[i / 2]) scores[n][i] = -INFINITY;
    }
  }
}

// Scores to weights, an operand: rows g, g + 8 at 2 * t (+1), then the same at + 8. What the
// state has so far is taken to the new maximum.
template <int kHeadDim>
__device__ __forceinline__ void Weigh(const float (&scores)[2][4], WarpState<kHeadDim>& state,
                                      uint32_t (&weights)[4]) {
  float factors[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    // fmaxf drops NaN: a query that is not finite stays so through its scores.
    float largest = fmaxf(fmaxf(scores[0][2 * r], scores[0][2 * r + 1]),
                          fmaxf(scores[1][2 * r], scores[1][2 * r + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    const float updated = fmaxf(state.max[r], largest);
    factors[r] = Rescale(state.max[r], updated);
    state.max[r] = updated;
    state.sum[r] *= factors[r];
  }
  // Almost always the maximum stays, and times 1 changes no bit.
  if (__any_sync(0xffffffffu, factors[0] != 1.0f || factors[1] != 1.0f)) {
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) state.out[n][i] *= factors[i / 2];
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float base = state.max[r] == -INFINITY ? 0.0f : state.max[r];
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const float p0 = Exp2(scores[n][2 * r] - base);
      const float p1 = Exp2(scores[n][2 * r + 1] - base);
      state.sum[r] += p0 + p1;
      weights[n * 2 + r] = HalfPair(p0, p1);
    }
  }
}

template <KvType T, int kHeadDim>
__device__ __forceinline__ void AddValues(const uint32_t (&weights)[4],
                                          const TileValues<T, kHeadDim>& values,
                                          WarpState<kHeadDim>& state) {
#pragma unroll
  for (int block = 0; block < kHeadDim / 32; ++block) {
    uint32_t scaled[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      scaled[i] = weights[i];
      if constexpr (T != KvType::kF16) {
        const uint32_t scale = values.scales[i / 2].Halves(block);
        const __half2 product = __hmul2(*reinterpret_cast<const __half2*>(&scaled[i]),
                                        *reinterpret_cast<const __half2*>(&scale));
        scaled[i] = *reinterpret_cast<const uint32_t*>(&product);
      }
    }
#pragma unroll
    for (int n = block * 4; n < block * 4 + 4; ++n) {
      const uint2 v = values.words.Operands(n);
      MmaHalf(state.out[n], scaled, v.x, v.y);
    }
  }
}

}  // namespace tandem::cuda
