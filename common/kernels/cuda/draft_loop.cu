#include "common/kernels/cuda/draft_choice.cuh"
#include "common/kernels/cuda/draft_loop.h"
#include "common/kernels/cuda/exp_sums.cuh"
#include "common/kernels/cuda/launch.cuh"
#include "common/kernels/cuda/mma.cuh"

namespace tandem::cuda {

#if CUDART_VERSION >= 13000
namespace {

// As CudaForward::Greatest has it: the host comes to the same end.
__device__ float ExpSum(const RowChoice& choice) {
  float sum = 0.0f;
  for (int i = 0; i < kExpSums; ++i) sum += choice.exp_sums[i];
  return sum;
}

__device__ DraftedToken GreatestToken(const RowChoice& choice, float sum) {
  const float probability = 1.0f / sum;
  return {static_cast<int32_t>(IdOfRank(choice.rank)), LogitOfRank(choice.rank), probability,
          probability};
}

// What other blocks wrote: not from this processor's first cache.
__device__ RowChoice ReadChoice(const RowChoice* choice) {
  RowChoice result;
  static_assert(sizeof(RowChoice) % sizeof(uint4) == 0);
#pragma unroll
  for (size_t i = 0; i < sizeof(RowChoice) / sizeof(uint4); ++i) {
    reinterpret_cast<uint4*>(&result)[i] = __ldcg(reinterpret_cast<const uint4*>(choice) + i);
  }
  return result;
}

__device__ __forceinline__ bool IsDrafting(const DraftRow& row) {
  return row.num_tokens < row.max_tokens;
}

// The token that a step chose for a row, whose blocks' parts are all there.
__device__ __forceinline__ DraftedToken TokenOf(const DraftLoopCall& call, int index) {
  const RowChoice choice = ReadChoice(&call.logits.choices[index]);
  const float sum = ExpSum(choice);
  const DraftSampling& sampling = call.rows[index].sampling;
  if (!Samples(sampling)) return GreatestToken(choice, sum);
  return NoisyToken(call.logits, sampling, index, choice, sum, &call.noisy[index]);
}

// Called by a block of at least as many threads as there are drafts.
__device__ void NextDrafts(const DraftLoopCall& call, cudaGraphConditionalHandle condition) {
  const int num_drafts = *call.num_drafts;
  const int index = threadIdx.x;
  DraftRow& row = call.rows[index];
  const bool is_drafting = index < num_drafts && IsDrafting(row);
  if (__syncthreads_or(is_drafting && HasBins(row.sampling))) {
    for (int i = index / 32; i < num_drafts; i += kExpThreads / 32) {
      const DraftRow& other = call.rows[i];
      if (!IsDrafting(other) || !HasBins(other.sampling)) continue;
      CutBins(other.sampling, &call.logits.choices[i], &call.noisy[i], index % 32);
    }
    __syncthreads();
  }
  bool goes_on = false;
  if (index < num_drafts) {
    int32_t token_row = row.token_row;
    int32_t position = row.position;
    if (is_drafting) {
      const DraftedToken token = TokenOf(call, index);
      const int32_t num_tokens = row.num_tokens + 1;
      call.drafted[index * call.max_tokens + num_tokens - 1] = token;
      row.num_tokens = num_tokens;
      // Not for a probability that is no number.
      goes_on = num_tokens < row.max_tokens && token.top_probability >= row.min_probability;
      if (goes_on) {
        row.token_row = token_row = token.place;
        row.position = ++position;
      } else {
        row.max_tokens = num_tokens;
      }
    }
    call.token_rows[index] = token_row;
    call.positions[index] = position;
    call.groups[index] = {
        .first_row = index, .num_rows = 1, .position = position, .table_offset = row.table_offset};
  }
  const int any = __syncthreads_or(goes_on);
  if (index > 0) return;
  *call.counts = {
      .num_rows = num_drafts, .num_row_groups = num_drafts, .num_logits_rows = num_drafts};
  cudaGraphSetConditional(condition, any != 0 ? 1 : 0);
}

// Where two blocks have room for their threads, noise may not take the registers of the second:
// those that do not sample need no more than half.
#if __CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000
constexpr int kBlocksPerSm = 2;
#else
constexpr int kBlocksPerSm = 1;
#endif

// The block that ends last, of all, goes on to the drafts.
__global__ void __launch_bounds__(kExpThreads, kBlocksPerSm)
    NextDraftsKernel(DraftLoopCall call, cudaGraphConditionalHandle condition) {
  static_assert(kExpThreads >= kMaxDraftRows);
  __shared__ bool is_last;
  WaitForPreviousKernel();
  const int index = static_cast<int>(blockIdx.y);
  const int part = static_cast<int>(blockIdx.x);
  // Asked for beside the number of drafts, not behind it.
  const DraftRow& row = call.rows[index];
  const int32_t num_tokens = row.num_tokens;
  const bool is_drafting = IsDrafting(row);
  const bool samples = Samples(row.sampling);
  if (index < *call.num_drafts && is_drafting) {
    if (samples) {
      StoreNoisyPart(call.logits, call.kept_ids, row.sampling, num_tokens, index, part,
                     &call.noisy[index]);
    } else {
      StoreExpSum(call.logits, index, part);
    }
  }
  // All that the block's threads found is written, and none of them reads the rows after this:
  // the last block of all writes them.
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    const unsigned num_blocks = gridDim.x * gridDim.y;
    is_last = atomicInc(call.num_done, num_blocks - 1) == num_blocks - 1;
    __threadfence();
  }
  __syncthreads();
  if (is_last) NextDrafts(call, condition);
}

}  // namespace

cudaError_t LaunchNextDrafts(const DraftLoopCall& call, int32_t max_rows,
                             cudaGraphConditionalHandle condition, const LaunchOptions& options) {
  return Launch(NextDraftsKernel, dim3(kExpSums, max_rows), kExpThreads, 0, options, call,
                condition);
}
#endif

}  // namespace tandem::cuda
