#include "common/kernels/cuda/draft_loop.h"
#include "common/kernels/cuda/launch.cuh"

namespace tandem::cuda {

#if CUDART_VERSION >= 13000
namespace {

// As CudaForward::Greatest has it: the host comes to the same end.
__device__ float Probability(const RowChoice& choice) {
  float sum = 0.0f;
  for (int i = 0; i < kExpSums; ++i) sum += choice.exp_sums[i];
  return 1.0f / sum;
}

__global__ void NextDraftsKernel(DraftLoopCall call, cudaGraphConditionalHandle condition) {
  const int num_drafts = *call.num_drafts;
  const int index = threadIdx.x;
  bool goes_on = false;
  if (index < num_drafts) {
    DraftRow row = call.rows[index];
    const RowChoice choice = call.choices[index];
    if (row.num_tokens < row.max_tokens) {
      call.drafted[index * call.max_tokens + row.num_tokens] = choice;
      ++row.num_tokens;
      // Not for a probability that is no number.
      goes_on = row.num_tokens < row.max_tokens && Probability(choice) >= row.min_probability;
      if (!goes_on) row.max_tokens = row.num_tokens;
    }
    if (goes_on) {
      row.token_row = static_cast<int32_t>(~static_cast<uint32_t>(choice.rank));
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

}  // namespace

cudaError_t LaunchNextDrafts(const DraftLoopCall& call, cudaGraphConditionalHandle condition,
                             cudaStream_t stream) {
  return Launch(NextDraftsKernel, dim3(1), kMaxDraftRows, 0, {.stream = stream}, call, condition);
}
#endif

}  // namespace tandem::cuda
