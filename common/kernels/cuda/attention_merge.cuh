// Sums over parts of a context, merged: the warps of a block, and the chunks of a context.
#pragma once

#include "common/kernels/cuda/attention_tile.cuh"

namespace tandem::cuda {

inline constexpr int kPositionWarps = 8;  // that share out the tiles of a chunk

// One value of two parts, merged.
__device__ __forceinline__ float Merge(float a, float a_factor, float b, float b_factor) {
  return __fmaf_rn(a, a_factor, __fmul_rn(b, b_factor));
}

// What half of a block's warps hand to the others, `kParts` parts one after the other.
template <int kHeadDim, int kQueryTiles>
struct Exchange {
  static constexpr int kParts = kQueryTiles;
  static constexpr int kVectors = kHeadDim / 8 / kParts;
  float4 out[kQueryTiles][kPositionWarps / 2][kVectors][32];
  float2 max[kQueryTiles][kPositionWarps / 2][8];  // of rows g and g + 8
  float2 sum[kQueryTiles][kPositionWarps / 2][8];
};

// Merges the states of the `num_used` first warps of each query tile into the first's, pair by
// pair; the others' are empty. Called by the whole block.
template <int kHeadDim, int kQueryTiles>
__device__ __forceinline__ void MergeWarps(WarpState<kHeadDim>& state,
                                           Exchange<kHeadDim, kQueryTiles>& exchange,
                                           int query_tile, int warp, int num_used, int lane) {
  using Shared = Exchange<kHeadDim, kQueryTiles>;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    state.sum[r] += __shfl_xor_sync(0xffffffffu, state.sum[r], 1);
    state.sum[r] += __shfl_xor_sync(0xffffffffu, state.sum[r], 2);
  }
#pragma unroll 1
  for (int stride = kPositionWarps / 2; stride > 0; stride /= 2) {
    if (num_used <= stride) continue;
    const bool gives = warp >= stride && warp < 2 * stride;
    const bool takes = warp < stride;
    const int slot = gives ? warp - stride : warp;
    float2 mine = make_float2(1.0f, 1.0f);
    float2 others = make_float2(1.0f, 1.0f);
#pragma unroll
    for (int part = 0; part < Shared::kParts; ++part) {
      float4(&out)[Shared::kVectors][32] = exchange.out[query_tile][gives || takes ? slot : 0];
      __syncthreads();
      if (gives) {
#pragma unroll
        for (int i = 0; i < Shared::kVectors; ++i) {
          const float(&values)[4] = state.out[part * Shared::kVectors + i];
          out[i][lane] = make_float4(values[0], values[1], values[2], values[3]);
        }
        exchange.max[query_tile][slot][lane / 4] = make_float2(state.max[0], state.max[1]);
        exchange.sum[query_tile][slot][lane / 4] = make_float2(state.sum[0], state.sum[1]);
      }
      __syncthreads();
      if (!takes) continue;
      if (part == 0) {
        const float2 max = exchange.max[query_tile][slot][lane / 4];
        const float2 sum = exchange.sum[query_tile][slot][lane / 4];
        const float updated[2] = {fmaxf(state.max[0], max.x), fmaxf(state.max[1], max.y)};
        mine = make_float2(Rescale(state.max[0], updated[0]), Rescale(state.max[1], updated[1]));
        others = make_float2(Rescale(max.x, updated[0]), Rescale(max.y, updated[1]));
        state.sum[0] = Merge(state.sum[0], mine.x, sum.x, others.x);
        state.sum[1] = Merge(state.sum[1], mine.y, sum.y, others.y);
        state.max[0] = updated[0];
        state.max[1] = updated[1];
      }
#pragma unroll
      for (int i = 0; i < Shared::kVectors; ++i) {
        float(&values)[4] = state.out[part * Shared::kVectors + i];
        const float4 other = out[i][lane];
        values[0] = Merge(values[0], mine.x, other.x, others.x);
        values[1] = Merge(values[1], mine.x, other.y, others.x);
        values[2] = Merge(values[2], mine.y, other.z, others.y);
        values[3] = Merge(values[3], mine.y, other.w, others.y);
      }
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

template <int kHeadDim>
__device__ __forceinline__ void Clear(PartSums<kHeadDim>* sums, int count) {
  constexpr int kFloats = sizeof(PartSums<kHeadDim>) / 4;
  for (int i = threadIdx.x; i < count * kFloats; i += blockDim.x) {
    const bool is_max = i % kFloats >= 16 * PartSums<kHeadDim>::kStride &&
                        i % kFloats < 16 * PartSums<kHeadDim>::kStride + 16;
    reinterpret_cast<float*>(sums)[i] = is_max ? -INFINITY : 0.0f;
  }
}

// total += the state of a warp that has merged all others'. Called by that warp.
template <int kHeadDim>
__device__ __forceinline__ void AddChunk(const WarpState<kHeadDim>& state,
                                         PartSums<kHeadDim>& total, int lane) {
  const int g = lane / 4;
  const int t = lane % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = g + 8 * r;
    const float before = total.max[row];
    const float updated = fmaxf(before, state.max[r]);
    const float a = Rescale(before, updated);
    const float b = Rescale(state.max[r], updated);
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
      float2* target = reinterpret_cast<float2*>(&total.out[row][n * 8 + 2 * t]);
      const float2 value = *target;
      *target = make_float2(Merge(value.x, a, state.out[n][2 * r], b),
                            Merge(value.y, a, state.out[n][2 * r + 1], b));
    }
    __syncwarp();
    if (t == 0) {
      total.max[row] = updated;
      total.sum[row] = Merge(total.sum[row], a, state.sum[r], b);
    }
  }
}

// Where the chunks' sums of one group and KV head are in memory: [chunk] of out
// [num_slots][kHeadDim], then max and sum [num_slots] each.
template <int kHeadDim>
struct StoredSums {
  float* values;
  int num_slots;  // for queries, a multiple of 16

  __device__ __forceinline__ StoredSums(const AttentionCall& call, int group, int kv_head,
                                        int max_chunks, int slots)
      : num_slots(slots) {
    const int64_t head = int64_t{group} * call.num_kv_heads + kv_head;
    values = call.partial + head * max_chunks * slots * (kHeadDim + 2);
  }
  __device__ __forceinline__ float* Out(int chunk) const {
    return values + int64_t{chunk} * num_slots * (kHeadDim + 2);
  }
  __device__ __forceinline__ float* Max(int chunk) const {
    return Out(chunk) + num_slots * kHeadDim;
  }
  __device__ __forceinline__ float* Sum(int chunk) const { return Max(chunk) + num_slots; }
};

// Called by the whole block. `first`: the first query's place.
template <int kHeadDim>
__device__ __forceinline__ void Store(const PartSums<kHeadDim>* sums, int num_queries,
                                      const StoredSums<kHeadDim>& target, int chunk, int first) {
  constexpr int kVectors = kHeadDim / 4;
  for (int i = threadIdx.x; i < num_queries * kVectors; i += blockDim.x) {
    const int query = i / kVectors;
    reinterpret_cast<float4*>(target.Out(chunk))[first * kVectors + i] =
        *reinterpret_cast<const float4*>(&sums[query / 16].out[query % 16][i % kVectors * 4]);
  }
  for (int query = threadIdx.x; query < num_queries; query += blockDim.x) {
    target.Max(chunk)[first + query] = sums[query / 16].max[query % 16];
    target.Sum(chunk)[first + query] = sums[query / 16].sum[query % 16];
  }
}

// One query's stored chunks merged in their order, with the bits that AddChunk gives one by
// one: kHeadDim / 32 consecutive dims a lane, and the sum. `kBatch` chunks, at most 32, are read at
// once. Called by a warp.
template <int kBatch, int kHeadDim>
__device__ __forceinline__ HeadVector<kHeadDim> MergeStored(const StoredSums<kHeadDim>& stored,
                                                            int count, int query, int lane,
                                                            float* sum) {
  constexpr int kPerLane = kHeadDim / 32;
  HeadVector<kHeadDim> total = {};
  float max = -INFINITY;
  *sum = 0.0f;
  for (int first = 0; first < count; first += kBatch) {
    const int here = min(count - first, kBatch);
    HeadVector<kHeadDim> parts[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (i < here) parts[i].Load(stored.Out(first + i) + query * kHeadDim, lane);
    }
    const float own_max = lane < here ? stored.Max(first + lane)[query] : -INFINITY;
    const float own_sum = lane < here ? stored.Sum(first + lane)[query] : 0.0f;
    float upto = fmaxf(own_max, max);  // the largest up to this lane's chunk
#pragma unroll
    for (int stride = 1; stride < 32; stride *= 2) {
      const float other = __shfl_up_sync(0xffffffffu, upto, stride);
      if (lane >= stride) upto = fmaxf(upto, other);
    }
    float before = __shfl_up_sync(0xffffffffu, upto, 1);
    if (lane == 0) before = max;
    const float a = Rescale(before, upto);
    const float b = Rescale(own_max, upto);
    max = __shfl_sync(0xffffffffu, upto, 31);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (i >= here) break;
      const float x = __shfl_sync(0xffffffffu, a, i);
      const float y = __shfl_sync(0xffffffffu, b, i);
      *sum = Merge(*sum, x, __shfl_sync(0xffffffffu, own_sum, i), y);
#pragma unroll
      for (int d = 0; d < kPerLane; ++d) {
        total.values[d] = Merge(total.values[d], x, parts[i].values[d], y);
      }
    }
  }
  return total;
}

}  // namespace tandem::cuda
