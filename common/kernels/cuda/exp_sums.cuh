// One part of the sum that makes a logit a probability.
#pragma once

#include "common/kernels/cuda/logit_rank.cuh"
#include "common/kernels/cuda/step_rows.h"

namespace tandem::cuda {

inline constexpr int kExpThreads = 1024;

__device__ __forceinline__ float WarpTotal(float sum) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  return sum;
}

// Part `part` of kExpSums of a row. Called by a block of kExpThreads.
__device__ __forceinline__ void StoreExpSum(const ExpSumsCall& call, int64_t row, int part) {
  constexpr int kBatch = 5;  // on their way together
  constexpr int kStride = kExpSums * kExpThreads;
  __shared__ float sums[kExpThreads / 32];
  const float* logits = call.logits + row * call.stride;
  const float greatest = LogitOfRank(call.choices[row].rank);
  float sum = 0.0f;
  for (int first = part * kExpThreads + threadIdx.x; first < call.num_ids;
       first += kBatch * kStride) {
    float batch[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int id = first + i * kStride;
      batch[i] = id < call.num_ids ? logits[id] : -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) sum += __expf(batch[i] - greatest);
  }
  sum = WarpTotal(sum);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  sum = WarpTotal(sums[threadIdx.x]);
  if (threadIdx.x == 0) call.choices[row].exp_sums[part] = sum;
}

}  // namespace tandem::cuda
