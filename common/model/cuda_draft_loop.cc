// A whole draft in one graph: a step, then a loop of steps of one row for each sequence, which the
// device ends by itself.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"
#include "common/model/cuda_forward.h"

namespace tandem {
namespace {

cuda::DraftSampling SamplingOf(const CandidateQuery& query, const DraftLimit& limit) {
  if (!(query.temperature > 0.0f)) return {};
  constexpr float kGreatest = 1e30f;  // times a difference of 0 it is 0
  cuda::DraftSampling sampling = {
      .inverse_temperature = std::min(1.0f / query.temperature, kGreatest),
      .num_ids = query.num_ids,
      .seed = query.seed,
      .position = query.position,
      .top_k = limit.top_k,
      .top_p = limit.top_p};
  if (limit.min_p > 0.0f) sampling.lowest = std::log(limit.min_p);
  return sampling;
}

}  // namespace

absl::Status CudaForward::Draft(absl::Span<const StepSequence> sequences,
                                absl::Span<const DraftLimit> limits,
                                std::vector<std::vector<DraftToken>>* drafts) {
  RETURN_IF_ERROR(CheckTables(sequences));
  CudaStepShape first = Stage(sequences);
  first.has_candidates = has_candidates_ = false;  // its tokens are chosen by the loop
  if (num_logits_rows_ > max_draft_rows_) {
    return absl::InvalidArgumentError(absl::StrCat(num_logits_rows_, " sequences draft, at most ",
                                                   max_draft_rows_, " can in one step"));
  }
  const CudaStepShape next = StageDrafts(sequences, limits);
  ASSIGN_OR_RETURN(const cudaGraphExec_t graph, DraftGraphFor(first, next));
  RETURN_IF_ERROR(Upload());
  RETURN_IF_ERROR(CudaStatus(cudaGraphLaunch(graph, stream_), "launching a draft"));
  const auto fetch = [&](void* to, const void* from, size_t bytes) {
    return CudaStatus(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_),
                      "fetching a draft");
  };
  RETURN_IF_ERROR(fetch(Staged(device_.draft_rows), device_.draft_rows,
                        static_cast<size_t>(num_logits_rows_) * sizeof(cuda::DraftRow)));
  RETURN_IF_ERROR(
      fetch(host_drafted_, device_.drafted,
            static_cast<size_t>(num_logits_rows_) * kMaxLoopTokens * sizeof(cuda::DraftedToken)));
  has_logits_.assign(has_logits_.size(), false);
  RETURN_IF_ERROR(WaitForDevice());

  drafts->assign(sequences.size(), {});
  int32_t row = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i].num_logits == 0) continue;
    for (int32_t token = 0; token < Staged(device_.draft_rows)[row].num_tokens; ++token) {
      const cuda::DraftedToken& drafted = host_drafted_[row * kMaxLoopTokens + token];
      (*drafts)[i].push_back({.token_id = drafted.place < 0 ? -1 : IdOf(drafted.place),
                              .logit = drafted.logit,
                              .probability = drafted.probability,
                              .top_probability = drafted.top_probability});
    }
    ++row;
  }
  return absl::OkStatus();
}

// The result bounds the steps after the first.
CudaStepShape CudaForward::StageDrafts(absl::Span<const StepSequence> sequences,
                                       absl::Span<const DraftLimit> limits) {
  CudaStepShape shape = {.max_group_rows = 1};
  int32_t table_offset = 0;
  int32_t num_drafts = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const StepSequence& sequence = sequences[i];
    if (sequence.num_logits > 0) {
      const int32_t position =
          sequence.start_position + static_cast<int32_t>(sequence.token_ids.size()) - 1;
      Staged(device_.draft_rows)[num_drafts++] = {
          .token_row = RowOf(sequence.token_ids.back()),
          .position = position,
          .table_offset = table_offset,
          .max_tokens = limits[i].max_tokens,
          .min_probability = limits[i].min_probability,
          .num_tokens = 0,
          .sampling = SamplingOf(sequence.candidates, limits[i])};
      shape.max_chunks =
          std::max(shape.max_chunks, cuda::NumChunks(position + limits[i].max_tokens));
    }
    table_offset += static_cast<int32_t>(sequence.page_table.size());
  }
  *Staged(device_.num_drafts) = num_drafts;
  RoundUpShape(
      {.num_rows = num_drafts, .num_row_groups = num_drafts, .num_logits_rows = num_drafts},
      /*has_few_rows_each=*/true, &shape);
  return shape;
}

absl::StatusOr<cudaGraphExec_t> CudaForward::DraftGraphFor(const CudaStepShape& first,
                                                           const CudaStepShape& next) {
  const auto key = std::make_pair(first.key(), next.key());
  const auto found = draft_graphs_.find(key);
  if (found != draft_graphs_.end()) return found->second;
  cudaGraph_t graph = nullptr;
  RETURN_IF_ERROR(CudaStatus(cudaGraphCreate(&graph, 0), "making a graph"));
  if (const absl::Status status = RecordDraftLoop(first, next, graph); !status.ok()) {
    cudaGraphDestroy(graph);
    return status;
  }
  ASSIGN_OR_RETURN(const cudaGraphExec_t executable, Instantiate(graph));
  draft_graphs_.emplace(key, executable);
  return executable;
}

#if CUDART_VERSION >= 13000
absl::Status CudaForward::RecordDraftLoop(const CudaStepShape& first, const CudaStepShape& next,
                                          cudaGraph_t graph) {
  cudaGraphConditionalHandle condition;
  RETURN_IF_ERROR(
      CudaStatus(cudaGraphConditionalHandleCreate(&condition, graph, 0, 0), "making a condition"));
  const cuda::DraftLoopCall call = {
      .num_drafts = device_.num_drafts,
      .rows = device_.draft_rows,
      .logits = ExpSums(),
      .kept_ids = config_.kept_ids.empty() ? nullptr : device_.kept_ids,
      .noisy = device_.noisy,
      .num_done = device_.num_done,
      .drafted = device_.drafted,
      .max_tokens = kMaxLoopTokens,
      .counts = device_.counts,
      .token_rows = device_.token_ids,
      .positions = device_.positions,
      .groups = device_.groups};
  // What ends a recording comes whatever was recorded; `last` is its last node.
  const auto record = [&](const CudaStepShape& shape, cudaGraph_t into,
                          cudaGraphNode_t* last) -> absl::Status {
    RETURN_IF_ERROR(CudaStatus(cudaStreamBeginCaptureToGraph(stream_, into, nullptr, nullptr, 0,
                                                             cudaStreamCaptureModeThreadLocal),
                               "recording a draft"));
    cudaError_t recorded = RecordLogits(shape);
    if (recorded == cudaSuccess) {
      recorded = cuda::LaunchNextDrafts(call, shape.max_logits_rows, condition,
                                        {.stream = stream_, .may_overlap = may_overlap_});
    }
    const cudaGraphNode_t* nodes = nullptr;
    size_t count = 0;
    cudaStreamCaptureStatus state;
    if (recorded == cudaSuccess) {
      recorded =
          cudaStreamGetCaptureInfo(stream_, &state, nullptr, nullptr, &nodes, nullptr, &count);
    }
    if (recorded == cudaSuccess) *last = count == 1 ? nodes[0] : nullptr;
    cudaGraph_t same = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(stream_, &same);
    RETURN_IF_ERROR(CudaStatus(recorded, "recording a draft"));
    RETURN_IF_ERROR(CudaStatus(ended, "ending a graph"));
    if (*last == nullptr) return absl::InternalError("a draft's graph does not end in one node");
    return absl::OkStatus();
  };
  cudaGraphNode_t last = nullptr;
  RETURN_IF_ERROR(record(first, graph, &last));
  cudaGraphNodeParams loop = {};
  loop.type = cudaGraphNodeTypeConditional;
  loop.conditional.handle = condition;
  loop.conditional.type = cudaGraphCondTypeWhile;
  loop.conditional.size = 1;
  cudaGraphNode_t node = nullptr;
  RETURN_IF_ERROR(CudaStatus(cudaGraphAddNode(&node, graph, &last, nullptr, 1, &loop),
                             "making a loop in a graph"));
  return record(next, loop.conditional.phGraph_out[0], &last);
}
#else
absl::Status CudaForward::RecordDraftLoop(const CudaStepShape&, const CudaStepShape&, cudaGraph_t) {
  return absl::UnimplementedError("drafts in one graph need CUDA 13");
}
#endif

}  // namespace tandem
