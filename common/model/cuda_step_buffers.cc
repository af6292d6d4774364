// Where a step's numbers lie in the workspace.
#include <algorithm>

#include "common/model/cuda_forward.h"

namespace tandem {
namespace {

constexpr int64_t kAlignment = 256;

}  // namespace

template <typename T>
T* CudaForward::Take(int64_t count) {
  const int64_t offset = taken_;
  taken_ += RoundUp(count * static_cast<int64_t>(sizeof(T)), kAlignment);
  return base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + offset);
}

cuda::Activations CudaForward::TakeActivations(int64_t rows, int64_t cols) {
  const int64_t padded_cols = cuda::PaddedCols(cols);
  cuda::Activations activations = {.padded_cols = static_cast<int32_t>(padded_cols)};
  activations.codes = Take<int8_t>(rows * padded_cols);
  activations.scales = Take<float>(rows * padded_cols / cuda::kScaleCols);
  activations.sums = Take<float>(rows * padded_cols / cuda::kScaleCols);
  return activations;
}

void CudaForward::LayOut() {
  taken_ = 0;
  const int64_t rows = RoundUp(limits_.max_step_tokens, kRowsOfBlock);
  const int64_t logits_rows = RoundUp(limits_.max_logits_rows, kRowsOfBlock);
  device_.candidates = Take<cuda::CandidateRow>(logits_rows);
  queries_bytes_ = taken_;
  device_.counts = Take<cuda::StepCounts>(1);
  device_.token_ids = Take<int32_t>(rows);
  device_.positions = Take<int32_t>(rows);
  device_.logits_rows = Take<int32_t>(logits_rows);
  device_.groups = Take<cuda::RowGroup>(rows);
  max_draft_rows_ = can_draft() ? std::min(limits_.max_logits_rows, cuda::kMaxDraftRows) : 0;
  device_.num_drafts = Take<int32_t>(1);
  device_.draft_rows = Take<cuda::DraftRow>(Bucket(max_draft_rows_, 8));
  fixed_bytes_ = taken_;
  device_.page_tables = Take<int32_t>(table_entries_);

  const int64_t q_dim = int64_t{config_.num_heads} * config_.head_dim;
  const int64_t kv_dim = int64_t{config_.num_kv_heads} * config_.head_dim;
  device_.residual = Take<float>(rows * config_.hidden_dim);
  device_.qkv = Take<float>(rows * (q_dim + 2 * kv_dim));
  device_.rope = Take<float2>(rows * (config_.rope_dim / 2));
  device_.square_sums = Take<float>(rows * (config_.hidden_dim / 32));
  device_.hidden = TakeActivations(rows, config_.hidden_dim);
  device_.attention = TakeActivations(rows, q_dim);
  device_.gated = TakeActivations(rows, config_.ffn_dim);
  device_.last = TakeActivations(logits_rows, config_.hidden_dim);
  device_.last_square_sums = Take<float>(logits_rows * (config_.hidden_dim / 32));
  device_.partial =
      Take<float>(cuda::PartialFloats(kMaxPartialTiles, config_.num_kv_heads, config_.head_dim));
  device_.logits = Take<float>(int64_t{limits_.max_logits_rows} * config_.num_embedding_rows());
  device_.choices = Take<cuda::RowChoice>(logits_rows);
  device_.noisy = Take<cuda::NoisyChoice>(max_draft_rows_);
  device_.drafted = Take<cuda::DraftedToken>(int64_t{max_draft_rows_} * kMaxLoopTokens);
  device_.num_done = Take<uint32_t>(1);
  device_.kept_ids = Take<int32_t>(static_cast<int64_t>(config_.kept_ids.size()));
}

}  // namespace tandem
