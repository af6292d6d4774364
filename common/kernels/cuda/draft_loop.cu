#include "common/kernels/cuda/draft_loop.h"
#include "common/kernels/cuda/exp_sums.cuh"
#include "common/kernels/cuda/launch.cuh"
#include "common/kernels/cuda/mma.cuh"

namespace tandem::cuda {

#if CUDART_VERSION >= 13000
namespace {

// As CudaForward::Greatest has it: the host comes to the same end.
__device__ float Probability(const RowChoice& choice) {
  float sum = 0.0f;
  for (int i = 0; i < kExpSums; ++i) sum += choice.exp_sums[i];
  return 1.0f / sum;
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

// Called by a block of at least as many threads as there are drafts.
__device__ void NextDrafts(const DraftLoopCall& call, cudaGraphConditionalHandle condition) {
  const int num_drafts = *call.num_drafts;
  const int index = threadIdx.x;
  bool goes_on = false;
  if (index < num_drafts) {
    DraftRow row = call.rows[index];
    const RowChoice choice = ReadChoice(&call.logits.choices[index]);
    if (row.num_tokens < row.max_tokens) {
      call.drafted[index * call.max_tokens + row.num_tokens] = choice;
      ++row.num_tokens;
      // Not for a probability that is no number.
      goes_on = row.num_tokens < row.max_tokens && Probability(choice) >= row.min_probability;
      if (!goes_on) row.max_tokens = row.num_tokens;
    }
    if (goes_on) {
      row.token_row = static_cast<int32_t>(IdOfRank(choice.rank));
      ++row.position;
    }
    call.rows[index] = row;
    call.token_rows[index] = row.token_row;
    call.positions[index] = row.position;
    call.groups[index] = {.first_row = index,
                          .num_rows = 1,
                          .position = row.position,
                          .table_offset = row.table_offset};
  }
  const int any = __syncthreads_or(goes_on);
  if (index > 0) return;
  *call.counts = {
      .num_rows = num_drafts, .num_row_groups = num_drafts, .num_logits_rows = num_drafts};
  cudaGraphSetConditional(condition, any != 0 ? 1 : 0);
}

// The block that ends last, of all, goes on to the drafts.
__global__ __launch_bounds__(kExpThreads) void NextDraftsKernel(
    DraftLoopCall call, cudaGraphConditionalHandle condition) {
  static_assert(kExpThreads >= kMaxDraftRows);
  __shared__ bool is_last;
  WaitForPreviousKernel();
  if (blockIdx.y < *call.logits.num_rows) StoreExpSum(call.logits, blockIdx.y, blockIdx.x);
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
