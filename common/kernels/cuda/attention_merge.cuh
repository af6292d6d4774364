// The sums of a context's parts, merged in the order of the parts.
#pragma once

#include "common/kernels/cuda/attention_tile.cuh"

namespace tandem::cuda {

template <int kHeadDim>
__device__ __forceinline__ void Clear(PartSums<kHeadDim>* sums, int count) {
  constexpr int kFloats = sizeof(PartSums<kHeadDim>) / 4;
  for (int i = threadIdx.x; i < count * kFloats; i += blockDim.x) {
    const bool is_max = i % kFloats >= 16 * PartSums<kHeadDim>::kStride &&
                        i % kFloats < 16 * PartSums<kHeadDim>::kStride + 16;
    reinterpret_cast<float*>(sums)[i] = is_max ? -INFINITY : 0.0f;
  }
}

// total += sums, query by query. Called by the whole block; ends in a barrier.
template <int kHeadDim>
__device__ __forceinline__ void MergeParts(PartSums<kHeadDim>* total,
                                           const PartSums<kHeadDim>* sums, int num_queries) {
  for (int i = threadIdx.x; i < num_queries * kHeadDim; i += blockDim.x) {
    const int row = i / kHeadDim % 16;
    PartSums<kHeadDim>& target = total[i / kHeadDim / 16];
    const PartSums<kHeadDim>& part = sums[i / kHeadDim / 16];
    const float updated = fmaxf(target.max[row], part.max[row]);
    float& value = target.out[row][i % kHeadDim];
    value = Merge(value, Rescale(target.max[row], updated), part.out[row][i % kHeadDim],
                  Rescale(part.max[row], updated));
  }
  __syncthreads();
  for (int query = threadIdx.x; query < num_queries; query += blockDim.x) {
    const int row = query % 16;
    PartSums<kHeadDim>& target = total[query / 16];
    const PartSums<kHeadDim>& part = sums[query / 16];
    const float updated = fmaxf(target.max[row], part.max[row]);
    target.sum[row] = Merge(target.sum[row], Rescale(target.max[row], updated), part.sum[row],
                            Rescale(part.max[row], updated));
    target.max[row] = updated;
  }
  __syncthreads();
}

// A chunk's sums in memory: out [kMaxGroupQueries][kHeadDim], then max and sum of each query.
template <int kHeadDim>
struct StoredSums {
  static constexpr int64_t kFloats = int64_t{kMaxGroupQueries} * (kHeadDim + 2);
  float* values;

  __device__ float* max(int query) const { return values + kMaxGroupQueries * kHeadDim + query; }
  __device__ float* sum(int query) const { return max(query) + kMaxGroupQueries; }
};

// total += the stored sums of `count` <= kMergeBatch chunks, in their order, with the bits
// that MergeParts gives one by one. Called by the whole block; ends in a barrier.
constexpr int kMergeBatch = 16;

template <int kHeadDim>
__device__ __forceinline__ void MergeStored(PartSums<kHeadDim>* total, float* stored, int count,
                                            int num_queries) {
  constexpr int64_t kFloats = StoredSums<kHeadDim>::kFloats;
  __shared__ float2 factors[kMergeBatch][kMaxGroupQueries];
  if (threadIdx.x < num_queries) {
    const int query = threadIdx.x;
    PartSums<kHeadDim>& target = total[query / 16];
    float maxima[kMergeBatch];
    float sums[kMergeBatch];
#pragma unroll
    for (int i = 0; i < kMergeBatch; ++i) {
      const StoredSums<kHeadDim> part = {stored + min(i, count - 1) * kFloats};
      maxima[i] = __ldcg(part.max(query));
      sums[i] = __ldcg(part.sum(query));
    }
    float max = target.max[query % 16];
    float sum = target.sum[query % 16];
#pragma unroll
    for (int i = 0; i < kMergeBatch; ++i) {
      if (i >= count) break;
      const float updated = fmaxf(max, maxima[i]);
      const float2 factor = make_float2(Rescale(max, updated), Rescale(maxima[i], updated));
      factors[i][query] = factor;
      sum = Merge(sum, factor.x, sums[i], factor.y);
      max = updated;
    }
    target.max[query % 16] = max;
    target.sum[query % 16] = sum;
  }
  __syncthreads();
  for (int item = threadIdx.x; item < num_queries * kHeadDim / 4; item += blockDim.x) {
    const int query = item / (kHeadDim / 4);
    const int dim = item % (kHeadDim / 4) * 4;
    float4* target = reinterpret_cast<float4*>(&total[query / 16].out[query % 16][dim]);
    float4 value = *target;
#pragma unroll 4
    for (int i = 0; i < count; ++i) {
      const float* part = stored + i * kFloats + query * kHeadDim + dim;
      const float4 other = __ldcg(reinterpret_cast<const float4*>(part));
      const float2 factor = factors[i][query];
      value.x = Merge(value.x, factor.x, other.x, factor.y);
      value.y = Merge(value.y, factor.x, other.y, factor.y);
      value.z = Merge(value.z, factor.x, other.z, factor.y);
      value.w = Merge(value.w, factor.x, other.w, factor.y);
    }
    *target = value;
  }
  __syncthreads();
}

// Leaves the sums of this block's chunk for the block that comes last of the group's, which
// is told so; it then has all chunks merged in `sums`, in their order.
template <int kHeadDim>
__device__ __forceinline__ bool MergeWithOthers(const AttentionCall& call, int num_chunks,
                                                int num_queries, PartSums<kHeadDim>* sums,
                                                int num_tiles, int chunk, int max_chunks) {
  __shared__ bool is_last;
  constexpr int64_t kFloats = StoredSums<kHeadDim>::kFloats;
  const int64_t head = int64_t{blockIdx.z} * gridDim.y + blockIdx.y;
  float* parts = call.partial + head * max_chunks * kFloats;
  const StoredSums<kHeadDim> mine = {parts + chunk * kFloats};
  for (int i = threadIdx.x; i < num_queries * kHeadDim; i += blockDim.x) {
    const int query = i / kHeadDim;
    mine.values[i] = sums[query / 16].out[query % 16][i % kHeadDim];
  }
  for (int query = threadIdx.x; query < num_queries; query += blockDim.x) {
    *mine.max(query) = sums[query / 16].max[query % 16];
    *mine.sum(query) = sums[query / 16].sum[query % 16];
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicAdd(call.arrivals + head, 1) == num_chunks - 1;
    if (is_last) call.arrivals[head] = 0;
  }
  __syncthreads();
  if (!is_last) return false;
  __threadfence();
  Clear(sums, num_tiles);
  __syncthreads();
  for (int first = 0; first < num_chunks; first += kMergeBatch) {
    MergeStored(sums, parts + first * kFloats, min(num_chunks - first, kMergeBatch), num_queries);
  }
  return true;
}

}  // namespace tandem::cuda
