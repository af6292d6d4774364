// The graphs of common steps, made before anybody waits for one: recording a graph and loading
// its kernels takes milliseconds, more than most steps.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"
#include "common/model/cuda_forward.h"
#include "common/telemetry/log.h"

namespace tandem {
namespace {

// Steps of `num_sequences` sequences with `num_tokens` each, the first at `position`.
struct CommonStep {
  int32_t num_sequences;
  int32_t num_tokens;
  int32_t num_logits;  // of each
  int32_t position = 0;
};

constexpr int32_t kPositions[] = {0, 256, 512};  // one chunk of attention, two, three or four

std::vector<CommonStep> CommonSteps(const ExecutorLimits& limits) {
  std::vector<CommonStep> steps;
  for (int32_t tokens = 2; tokens <= limits.max_step_tokens; tokens *= 2) {
    for (const int32_t logits : {0, 1}) {
      steps.push_back({.num_sequences = 1, .num_tokens = tokens, .num_logits = logits});
    }
    // A prompt beside many decodes.
    if (tokens > cuda::kMaxFewRows) steps.push_back({32, tokens / 32, 1});
  }
  for (const int32_t position : kPositions) {
    for (const int32_t sequences : {1, 2, 4, 8, 16, 32}) {
      steps.push_back({sequences, 1, 1, position});
    }
    for (const int32_t sequences : {1, 2, 4}) {
      for (const int32_t rows : {4, 8}) steps.push_back({sequences, rows, rows, position});
    }
  }
  std::erase_if(steps, [&](const CommonStep& step) {
    return step.num_sequences * step.num_tokens > limits.max_step_tokens ||
           step.num_sequences * step.num_logits > limits.max_logits_rows ||
           step.position + step.num_tokens > limits.max_positions;
  });
  return steps;
}

}  // namespace

// One row that is of no sequence: it reads and writes the workspace alone, no page.
absl::Status CudaForward::RunEmpty(const CudaStepShape& shape, cudaGraphExec_t graph) {
  *Staged(device_.counts) = {
      .num_rows = 1, .num_row_groups = 0, .num_logits_rows = std::min(shape.max_logits_rows, 1)};
  Staged(device_.token_ids)[0] = 0;
  Staged(device_.positions)[0] = 0;
  Staged(device_.logits_rows)[0] = 0;
  *Staged(device_.num_drafts) = 0;
  staged_bytes_ = fixed_bytes_;
  RETURN_IF_ERROR(Upload());
  RETURN_IF_ERROR(CudaStatus(cudaGraphLaunch(graph, stream_), "launching a step"));
  return WaitForDevice();
}

absl::Status CudaForward::WarmUp() {
  const int32_t group_rows = cuda::GroupRows(config_.num_heads / config_.num_kv_heads);
  for (const CommonStep& step : CommonSteps(limits_)) {
    const bool is_one_group_each = step.num_tokens <= group_rows;
    CudaStepShape shape = {
        .max_group_rows = std::min(step.num_tokens, group_rows),
        .max_chunks = cuda::NumChunks(step.position + step.num_tokens),
        .gathers_logits = step.num_logits > 0 && step.num_logits < step.num_tokens};
    RoundUpShape(
        {.num_rows = step.num_sequences * step.num_tokens,
         .num_row_groups = step.num_sequences * ((step.num_tokens + group_rows - 1) / group_rows),
         .num_logits_rows = step.num_sequences * step.num_logits},
        is_one_group_each, &shape);
    ASSIGN_OR_RETURN(const cudaGraphExec_t graph, GraphFor(shape));
    RETURN_IF_ERROR(RunEmpty(shape, graph));
  }
  return WarmUpDrafts();
}

// A driver that cannot run loops in graphs is found out here.
absl::Status CudaForward::WarmUpDrafts() {
  for (const int32_t position : kPositions) {
    for (const int32_t sequences : {1, 2, 4, 8}) {
      // After a verify a sequence has one or two tokens to run.
      for (const int32_t tokens : {1, 2}) {
        if (!can_draft() || sequences > max_draft_rows_ ||
            sequences * tokens > limits_.max_step_tokens ||
            position + kMaxLoopTokens > limits_.max_positions) {
          continue;
        }
        CudaStepShape first = {.max_group_rows = tokens,
                               .max_chunks = cuda::NumChunks(position + tokens),
                               .gathers_logits = tokens > 1};
        CudaStepShape next = {.max_group_rows = 1,
                              .max_chunks = cuda::NumChunks(position + kMaxLoopTokens)};
        RoundUpShape({sequences * tokens, sequences, sequences}, true, &first);
        RoundUpShape({sequences, sequences, sequences}, true, &next);
        const absl::StatusOr<cudaGraphExec_t> graph = DraftGraphFor(first, next);
        if (!graph.ok()) {
          LogWarning(absl::StrCat("drafts are made token by token: ", graph.status().message()));
          can_draft_ = false;
          return absl::OkStatus();
        }
        RETURN_IF_ERROR(RunEmpty(first, *graph));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace tandem
