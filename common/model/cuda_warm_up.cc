// The graphs of common steps, made before anybody waits for one: recording a graph and loading
// its kernels takes milliseconds, more than most steps.
#include <algorithm>

#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"
#include "common/model/cuda_forward.h"

namespace tandem {
namespace {

constexpr int32_t kChunks[] = {1, 2, 4};  // of attention: contexts of up to 1024 positions

}  // namespace

std::vector<CudaStepShape> CudaForward::CommonShapes() const {
  std::vector<CudaStepShape> shapes;
  const auto add = [&](const cuda::StepCounts& counts, bool has_few_rows_each,
                       CudaStepShape shape) {
    if (counts.num_rows > limits_.max_step_tokens ||
        counts.num_logits_rows > limits_.max_logits_rows) {
      return;
    }
    RoundUpShape(counts, has_few_rows_each, &shape);
    shapes.push_back(shape);
  };
  for (const int32_t chunks : kChunks) {
    for (const bool has_candidates : {false, true}) {
      add({1, 1, 1}, true,
          {.max_group_rows = 1, .max_chunks = chunks, .has_candidates = has_candidates});
    }
  }
  // Decodes and verifies, of 1 to 8 rows for each sequence.
  for (int32_t rows = 8; rows <= kMaxSplitRows; rows *= 2) {
    for (int32_t groups = rows / 8; groups <= rows; groups *= 2) {
      for (const int32_t group_rows : {1, cuda::kMaxGroupRows}) {
        for (const int32_t chunks : kChunks) {
          if (rows > 8 && chunks > 2) continue;
          for (const bool has_candidates : {false, true}) {
            if (has_candidates && rows > 8 && group_rows > 1) continue;
            add({rows, groups, rows}, true,
                {.max_group_rows = group_rows,
                 .max_chunks = chunks,
                 .has_candidates = has_candidates});
          }
        }
      }
    }
  }
  // Prompts, alone and beside decodes.
  for (int32_t rows = 8; rows <= limits_.max_step_tokens; rows *= 2) {
    for (const int32_t logits : {0, 8, 16, 32}) {
      if (logits <= rows) add({rows, rows, logits}, false, {});
    }
  }
  return shapes;
}

// One row that is of no sequence: it reads and writes the workspace alone, no page.
absl::Status CudaForward::RunEmpty(const CudaStepShape& shape, cudaGraphExec_t graph) {
  *Staged(device_.counts) = {
      .num_rows = 1, .num_row_groups = 0, .num_logits_rows = std::min(shape.max_logits_rows, 1)};
  Staged(device_.token_ids)[0] = 0;
  Staged(device_.positions)[0] = 0;
  Staged(device_.logits_rows)[0] = 0;
  *Staged(device_.num_drafts) = 0;
  has_candidates_ = false;
  staged_bytes_ = fixed_bytes_;
  RETURN_IF_ERROR(Upload());
  RETURN_IF_ERROR(CudaStatus(cudaGraphLaunch(graph, stream_), "launching a step"));
  return WaitForDevice();
}

absl::Status CudaForward::WarmUp() {
  for (const CudaStepShape& shape : CommonShapes()) {
    ASSIGN_OR_RETURN(const cudaGraphExec_t graph, GraphFor(shape));
    RETURN_IF_ERROR(RunEmpty(shape, graph));
  }
  return WarmUpDrafts();
}

// A driver that cannot run loops in graphs is found out here.
absl::Status CudaForward::WarmUpDrafts() {
  for (const int32_t chunks : kChunks) {
    for (const int32_t sequences : {1, 2, 4, 8}) {
      // After a verify a sequence has one or two tokens to run.
      for (const int32_t tokens : {1, 2}) {
        if (!can_draft() || sequences > max_draft_rows_ ||
            sequences * tokens > limits_.max_step_tokens) {
          continue;
        }
        CudaStepShape first = {
            .max_group_rows = tokens, .max_chunks = chunks, .gathers_logits = tokens > 1};
        CudaStepShape next = {.max_group_rows = 1, .max_chunks = chunks};
        RoundUpShape({sequences * tokens, sequences, sequences}, true, &first);
        RoundUpShape({sequences, sequences, sequences}, true, &next);
        const absl::StatusOr<cudaGraphExec_t> graph = DraftGraphFor(first, next);
        if (!graph.ok()) {
          draft_note_ = std::string(graph.status().message());
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
