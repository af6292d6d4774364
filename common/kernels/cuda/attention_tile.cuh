// What a warp does with one tile of 16 positions, and how sums over parts of a context
// are merged. Running maxima and sums as in Milakov and Gimelshein (2018) and
// FlashAttention (Dao et al. 2022); everything in base 2.
#pragma once

#include <cmath>

#include "common/kernels/cuda/attention.h"
#include "common/kernels/cuda/kv_format.cuh"

namespace tandem::cuda {

// Halves of a query row in shared memory; the padding spreads rows over the banks.
constexpr int QueryStride(int head_dim) { return head_dim + 32; }

// The region of one head in one page.
struct HeadRegion {
  const uint8_t* codes;
  const uint8_t* scales;
};

template <KvType T, int kHeadDim>
__device__ __forceinline__ HeadRegion RegionAt(const uint8_t* region, int page_positions) {
  return {region, region + page_positions * (kHeadDim * kBitsOf(T) / 8)};
}

// 16 queries of a warp: lane 4 * g + t has rows g and g + 8 ([0] and [1]).
template <int kHeadDim>
struct WarpState {
  float out[kHeadDim / 8][4] = {};  // columns 8 * n + 2 * t (+1); rows g, g, g + 8, g + 8
  float max[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0.0f, 0.0f};  // of this lane's columns only
};

// The factor that takes a sum with maximum `from` to maximum `to`.
__device__ __forceinline__ float Rescale(float from, float to) {
  return from == to ? 1.0f : exp2f(from - to);
}

// What a lane needs of the keys at 8 positions.
template <KvType T, int kHeadDim>
struct KeyOperands {
  KeyWords<T, kHeadDim> words;
  ScalePair<kHeadDim> scales;

  __device__ __forceinline__ void Load(const HeadRegion& keys, int slot, int lane) {
    words.Load(keys.codes, slot + lane / 4, lane % 4);
    if constexpr (T != KvType::kF16) scales.Load(keys.scales, slot + lane % 4 * 2);
  }
};

// Scores of 16 queries at those positions: float [4] as MmaHalf's d.
template <KvType T, int kHeadDim>
__device__ __forceinline__ void Scores(const __half* queries, const KeyOperands<T, kHeadDim>& keys,
                                       int lane, float (&scores)[4]) {
  const int g = lane / 4;
  const int t = lane % 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) scores[i] = 0.0f;
#pragma unroll
  for (int block = 0; block < kHeadDim / 32; ++block) {
    const __half* source = queries + g * QueryStride(kHeadDim) + block * 32 + t * 8;
    const uint4 low = *reinterpret_cast<const uint4*>(source);
    const uint4 high = *reinterpret_cast<const uint4*>(source + 8 * QueryStride(kHeadDim));
    const uint32_t first[4] = {low.x, high.x, low.y, high.y};
    const uint32_t second[4] = {low.z, high.z, low.w, high.w};
    const uint2 k0 = keys.words.Operands(block, 0);
    const uint2 k1 = keys.words.Operands(block, 1);
    float dot[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    MmaHalf(dot, first, k0.x, k0.y);
    MmaHalf(dot, second, k1.x, k1.y);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (T == KvType::kF16) {
        scores[i] += dot[i];
      } else {
        scores[i] = __fmaf_rn(keys.scales.Float(i % 2, block), dot[i], scores[i]);
      }
    }
  }
}

// Adds a tile whose first position is `position`. `limits`: the last position that rows g and
// g + 8 see; `last`: the last that is written at all.
template <KvType KT, KvType VT, int kHeadDim>
__device__ __forceinline__ void AddTile(const __half* queries, const HeadRegion& keys,
                                        const HeadRegion& values, int slot, int position, int last,
                                        const int (&limits)[2], int lane,
                                        WarpState<kHeadDim>& state) {
  const int t = lane % 4;
  // All reads first.
  KeyOperands<KT, kHeadDim> operands[2];
  operands[0].Load(keys, slot, lane);
  operands[1].Load(keys, slot + 8, lane);
  ValueWords<VT, kHeadDim> words;
  words.Load(values.codes, slot, lane);
  ScalePair<kHeadDim> value_scales[2];
  if constexpr (VT != KvType::kF16) {
    value_scales[0].Load(values.scales, slot + 2 * t);
    value_scales[1].Load(values.scales, slot + 2 * t + 8);
  }
  float scores[2][4];
  Scores<KT, kHeadDim>(queries, operands[0], lane, scores[0]);
  Scores<KT, kHeadDim>(queries, operands[1], lane, scores[1]);

  float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = position + n * 8 + 2 * t + i % 2;
      if (at > limits[i / 2]) scores[n][i] = -INFINITY;
      largest[i / 2] = fmaxf(largest[i / 2], scores[n][i]);
      // fmaxf drops NaN: a query that is not finite stays so through its scores.
    }
  }
  float factors[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    largest[r] = fmaxf(largest[r], __shfl_xor_sync(0xffffffffu, largest[r], 1));
    largest[r] = fmaxf(largest[r], __shfl_xor_sync(0xffffffffu, largest[r], 2));
    const float updated = fmaxf(state.max[r], largest[r]);
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
  uint32_t weights[4];  // an operand: rows g, g + 8 at 2 * t (+1), then the same at + 8
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float base = state.max[r] == -INFINITY ? 0.0f : state.max[r];
      const float p0 = exp2f(scores[n][2 * r] - base);
      const float p1 = exp2f(scores[n][2 * r + 1] - base);
      state.sum[r] += p0 + p1;
      weights[n * 2 + r] = HalfPair(p0, p1);
    }
  }
  bool exists[2][2];
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    exists[n][0] = position + n * 8 + 2 * t <= last;
    exists[n][1] = position + n * 8 + 2 * t + 1 <= last;
  }
#pragma unroll
  for (int block = 0; block < kHeadDim / 32; ++block) {
    uint32_t scaled[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      scaled[i] = weights[i];
      if constexpr (VT != KvType::kF16) {
        const uint32_t scale =
            value_scales[i / 2].Halves(block, exists[i / 2][0], exists[i / 2][1]);
        const __half2 product = __hmul2(*reinterpret_cast<const __half2*>(&scaled[i]),
                                        *reinterpret_cast<const __half2*>(&scale));
        scaled[i] = *reinterpret_cast<const uint32_t*>(&product);
      }
    }
#pragma unroll
    for (int n = block * 4; n < block * 4 + 4; ++n) {
      uint2 v = words.Operands(n);
      if constexpr (VT == KvType::kF16) {
        // What was never written may be anything.
        v.x &= (exists[0][0] ? 0xffffu : 0u) | (exists[0][1] ? 0xffff0000u : 0u);
        v.y &= (exists[1][0] ? 0xffffu : 0u) | (exists[1][1] ? 0xffff0000u : 0u);
      }
      MmaHalf(state.out[n], scaled, v.x, v.y);
    }
  }
}

// Sums over a part of the context for 16 queries, in shared memory.
template <int kHeadDim>
struct PartSums {
  static constexpr int kStride = kHeadDim + 4;
  float out[16][kStride];
  float max[16];
  float sum[16];
};

// One value of two parts, merged.
__device__ __forceinline__ float Merge(float a, float a_factor, float b, float b_factor) {
  return __fmaf_rn(a, a_factor, __fmul_rn(b, b_factor));
}

// parts += a warp's state. The lanes of a row have summed their own columns.
template <int kHeadDim>
__device__ __forceinline__ void MergeWarp(WarpState<kHeadDim>& state, PartSums<kHeadDim>& part,
                                          int lane) {
  const int g = lane / 4;
  const int t = lane % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = g + 8 * r;
    float sum = state.sum[r];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    const float before = part.max[row];
    const float updated = fmaxf(before, state.max[r]);
    const float a = Rescale(before, updated);
    const float b = Rescale(state.max[r], updated);
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
      float2* target = reinterpret_cast<float2*>(&part.out[row][n * 8 + 2 * t]);
      const float2 value = *target;
      *target = make_float2(Merge(value.x, a, state.out[n][2 * r], b),
                            Merge(value.y, a, state.out[n][2 * r + 1], b));
    }
    __syncwarp();
    if (t == 0) {
      part.max[row] = updated;
      part.sum[row] = Merge(part.sum[row], a, sum, b);
    }
  }
}

}  // namespace tandem::cuda
