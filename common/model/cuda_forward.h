// The forward pass of a Llama-architecture model on a CUDA device.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/device/device_memory.h"
#include "common/kernels/cuda/attention.h"
#include "common/kernels/cuda/draft_loop.h"
#include "common/kernels/cuda/matmul.h"
#include "common/kernels/cuda/row_candidates.h"
#include "common/kernels/cuda/step_rows.h"
#include "common/model/cuda_weights.h"
#include "common/model/executor.h"

namespace tandem {

inline int64_t RoundUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// Bounds of shapes, so that few graphs serve all steps.
inline int32_t Bucket(int32_t value, int32_t least) {
  return std::max(least, static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(value))));
}

inline constexpr int64_t kRowsOfBlock = 64;  // the kernels for many rows read whole blocks
// Tiles of queries, for all groups and chunks of a step, that attention may leave in memory
// between its kernels.
inline constexpr int32_t kMaxPartialTiles = 256;

// Rows of a step, and of one sequence in it, whose attention may be split by chunks: a sequence's
// new keys and values are then written by each block that reads them.
inline constexpr int32_t kMaxSplitRows = 32;
inline constexpr int32_t kMaxSequenceSplitRows = 16;

// Device buffers of one step; all rows of it go through each layer together.
struct CudaStepBuffers {
  // Read by the device, written in one copy, which begins with the candidates where a step
  // asks for some, else after them.
  cuda::CandidateRow* candidates = nullptr;  // [max_logits_rows]
  cuda::StepCounts* counts = nullptr;
  int32_t* token_ids = nullptr;      // [max_rows]
  int32_t* positions = nullptr;      // [max_rows]
  int32_t* logits_rows = nullptr;    // [max_logits_rows]
  cuda::RowGroup* groups = nullptr;  // [max_rows]
  int32_t* num_drafts = nullptr;
  cuda::DraftRow* draft_rows = nullptr;  // [max_draft_rows, as the bounds of a shape]
  int32_t* page_tables = nullptr;        // [table_entries]

  float* residual = nullptr;  // [max_rows][hidden]
  float* qkv = nullptr;       // [max_rows][q_dim + 2 * kv_dim]
  float2* rope = nullptr;     // [max_rows][rope_dim / 2]
  float* square_sums = nullptr;
  cuda::Activations hidden;     // of the residual
  cuda::Activations attention;  // of the heads' outputs
  cuda::Activations gated;      // of the feed-forward
  cuda::Activations last;       // rows that want logits
  float* last_square_sums = nullptr;
  float* partial = nullptr;
  float* logits = nullptr;                // [max_logits_rows][rows of the head]
  cuda::RowChoice* choices = nullptr;     // [max_logits_rows]
  cuda::NoisyChoice* noisy = nullptr;     // [max_draft_rows]
  cuda::DraftedToken* drafted = nullptr;  // [max_draft_rows][kMaxLoopTokens]
  uint32_t* num_done = nullptr;           // blocks of LaunchNextDrafts
  int32_t* kept_ids = nullptr;            // trimmed: [rows of the head but the last]
};

// Tokens of a sequence that one Draft makes at most.
inline constexpr int32_t kMaxLoopTokens = 16;

// Bounds of a step's shape: one graph serves all steps within them.
struct CudaStepShape {
  int32_t max_rows = 0;
  int32_t max_groups = 0;
  int32_t max_group_rows = 0;
  int32_t max_chunks = 0;
  int32_t max_logits_rows = 0;
  bool splits_chunks = false;  // attention by chunks
  bool gathers_logits = false;
  bool has_candidates = false;

  auto key() const {
    return std::make_tuple(max_rows, max_groups, max_group_rows, max_chunks, max_logits_rows,
                           splits_chunks, gathers_logits, has_candidates);
  }
};

// Runs steps that were checked. One CUDA graph for each shape of step, made when it first
// occurs; steady steps launch nothing else. Config, weights and ledger are borrowed. Not
// thread-safe.
class CudaForward {
 public:
  static absl::StatusOr<std::unique_ptr<CudaForward>> Create(const ModelConfig& config,
                                                             const CudaWeights& weights,
                                                             const ExecutorLimits& limits,
                                                             bool with_probabilities,
                                                             DeviceLedger* ledger);
  ~CudaForward();

  // Pages that later steps use; page tables have at most `max_pages` entries a sequence.
  absl::Status Attach(const KvMemory& memory, const KvLayout& layout);

  // Makes the graphs of common steps: the first requests would wait for them.
  absl::Status WarmUp();

  // Returns when the step is done. DEADLINE_EXCEEDED when the device does not answer.
  absl::Status Run(absl::Span<const StepSequence> sequences);

  // See Executor::Draft; `limits` at most kMaxLoopTokens.
  absl::Status Draft(absl::Span<const StepSequence> sequences, absl::Span<const DraftLimit> limits,
                     std::vector<std::vector<DraftToken>>* drafts);
  bool can_draft() const { return can_draft_; }
  const std::string& draft_note() const { return draft_note_; }

  // Row `row` of the last Run's logits [vocab], copied when it is first asked for.
  absl::StatusOr<absl::Span<float>> Logits(int32_t row);
  // The id, value and probability of its greatest logit; the value is NaN when one is.
  GreatestLogit Greatest(int32_t row) const { return GreatestOf(host_choices_[row]); }
  // As Executor::Candidates.
  std::optional<RowCandidates> Candidates(int32_t row);

  int64_t workspace_bytes() const;

 private:
  CudaForward(const ModelConfig& config, const CudaWeights& weights, const ExecutorLimits& limits,
              bool with_probabilities)
      : config_(config),
        weights_(weights),
        limits_(limits),
        with_probabilities_(with_probabilities),
        can_draft_(cuda::kHasDraftLoop && with_probabilities) {}

  absl::Status Allocate(DeviceLedger* ledger);
  cuda::Activations TakeActivations(int64_t rows, int64_t cols);
  absl::Status CheckTables(absl::Span<const StepSequence> sequences) const;
  CudaStepShape Stage(absl::Span<const StepSequence> sequences);
  void RoundUpShape(const cuda::StepCounts& counts, bool has_few_rows_each,
                    CudaStepShape* shape) const;
  // Whether there are any.
  bool StageQueries(absl::Span<const StepSequence> sequences);
  absl::Status FetchCandidates();
  // The host's side of a device buffer that is uploaded.
  template <typename T>
  T* Staged(T* device) const {
    return reinterpret_cast<T*>(staging_ + (reinterpret_cast<uint8_t*>(device) - base_));
  }
  // The embedding's row of an id.
  int32_t RowOf(int32_t id) const { return row_of_id_.empty() ? id : row_of_id_[id]; }
  absl::Status Upload();
  absl::StatusOr<cudaGraphExec_t> GraphFor(const CudaStepShape& shape);
  absl::StatusOr<cudaGraphExec_t> Instantiate(cudaGraph_t graph);
  cudaError_t Record(const CudaStepShape& shape);
  cudaError_t RecordLogits(const CudaStepShape& shape);
  cudaError_t RecordLayer(const CudaStepShape& shape, int32_t index);
  cudaError_t RecordAttention(const CudaStepShape& shape, int32_t index);
  cudaError_t RecordHead(const CudaStepShape& shape);
  cudaError_t RecordChoices(const CudaStepShape& shape);
  cudaError_t Matmul(const cuda::MatmulCall& call, int32_t max_rows);
  cuda::ResidualOutput ResidualWith(const float* norm_weights) const;
  cuda::ExpSumsCall ExpSums() const;
  cuda::RmsScale RmsOf(const float* square_sums) const;
  GreatestLogit GreatestOf(const cuda::RowChoice& choice) const;
  // The id of a row of the head.
  int32_t IdOf(int32_t row) const { return config_.kept_ids.empty() ? row : config_.kept_ids[row]; }
  // cuda_draft_loop.cc
  CudaStepShape StageDrafts(absl::Span<const StepSequence> sequences,
                            absl::Span<const DraftLimit> limits);
  absl::StatusOr<cudaGraphExec_t> DraftGraphFor(const CudaStepShape& first,
                                                const CudaStepShape& next);
  absl::Status RecordDraftLoop(const CudaStepShape& first, const CudaStepShape& next,
                               cudaGraph_t graph);
  // cuda_warm_up.cc
  std::vector<CudaStepShape> CommonShapes() const;
  absl::Status RunEmpty(const CudaStepShape& shape, cudaGraphExec_t graph);
  absl::Status WarmUpDrafts();
  void DropGraphs();
  absl::Status WaitForDevice();
  void ExpandTrimmed(float* logits) const;
  // Rows of the head that are of an id: not the one that stands for those left out.
  int32_t num_drafted_ids() const {
    return config_.kept_ids.empty() ? config_.vocab_size
                                    : static_cast<int32_t>(config_.kept_ids.size());
  }

  const ModelConfig& config_;
  const CudaWeights& weights_;
  ExecutorLimits limits_;
  const bool with_probabilities_;
  bool can_draft_;
  std::string draft_note_;  // what the driver said
  cudaStream_t stream_ = nullptr;
  cudaEvent_t done_ = nullptr;
  bool may_overlap_ = false;
  int num_processors_ = 0;
  int64_t ahead_bytes_ = 0;  // of weights that a kernel fetches for the next one
  KvMemory kv_;
  KvLayout layout_;

  DeviceBuffer memory_;
  CudaStepBuffers device_;
  // The host's side of what is uploaded, pinned, and the offsets of its parts. The rows'
  // candidates come back to where their queries were.
  uint8_t* staging_ = nullptr;
  int64_t queries_bytes_ = 0;  // at the beginning
  int64_t fixed_bytes_ = 0;    // before the page tables
  int32_t max_draft_rows_ = 0;
  int64_t table_entries_ = 0;
  int64_t staged_bytes_ = 0;
  cuda::RowChoice* host_choices_ = nullptr;  // pinned
  cuda::CandidateIds* host_ids_ = nullptr;   // pinned [max_logits_rows], written by the device
  bool has_candidates_ = false;              // of the last Run
  std::vector<IdLogit> near_;                // of one row
  float* host_logits_ = nullptr;             // pinned [max_logits_rows][vocab]
  std::vector<bool> has_logits_;             // rows that were copied
  std::vector<int32_t> row_of_id_;           // trimmed: [vocab], the embedding's row of each id
  int32_t num_logits_rows_ = 0;
  using ShapeKey = decltype(CudaStepShape().key());
  std::map<ShapeKey, cudaGraphExec_t> graphs_;
  std::map<std::pair<ShapeKey, ShapeKey>, cudaGraphExec_t> draft_graphs_;
  cuda::DraftedToken* host_drafted_ = nullptr;  // pinned [max_draft_rows][kMaxLoopTokens]

  // Hands out parts of memory_ while it is laid out; null base: counts only.
  uint8_t* base_ = nullptr;
  int64_t taken_ = 0;
  template <typename T>
  T* Take(int64_t count);
  void LayOut();
};

}  // namespace tandem
