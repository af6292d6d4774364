#include "common/model/cuda_forward.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <limits>
#include <numeric>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"
#include "common/model/trimmed_head.h"

namespace tandem {
namespace {

// A step takes milliseconds; a device that takes this long does not answer any more.
constexpr auto kDeviceTimeout = std::chrono::seconds(60);

}  // namespace

absl::StatusOr<std::unique_ptr<CudaForward>> CudaForward::Create(const ModelConfig& config,
                                                                 const CudaWeights& weights,
                                                                 const ExecutorLimits& limits,
                                                                 bool with_probabilities,
                                                                 DeviceLedger* ledger) {
  std::unique_ptr<CudaForward> forward(
      new CudaForward(config, weights, limits, with_probabilities));
  RETURN_IF_ERROR(forward->Allocate(ledger));
  return forward;
}

absl::Status CudaForward::Allocate(DeviceLedger* ledger) {
  RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"));
  RETURN_IF_ERROR(
      CudaStatus(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "making an event"));
  int device = 0, major = 0, cache_bytes = 0;
  RETURN_IF_ERROR(CudaStatus(cudaGetDevice(&device), "asking for the device"));
  const auto ask = [&](cudaDeviceAttr attribute, int* value) {
    return CudaStatus(cudaDeviceGetAttribute(value, attribute, device), "asking for attributes");
  };
  RETURN_IF_ERROR(ask(cudaDevAttrComputeCapabilityMajor, &major));
  RETURN_IF_ERROR(ask(cudaDevAttrMultiProcessorCount, &num_processors_));
  RETURN_IF_ERROR(ask(cudaDevAttrL2CacheSize, &cache_bytes));
  may_overlap_ = major >= 9;
  if (may_overlap_) ahead_bytes_ = cache_bytes / 16;
  // A page holds at least 16 positions.
  table_entries_ = int64_t{limits_.max_step_tokens} + int64_t{limits_.max_step_tokens} * 8 +
                   limits_.max_positions;
  LayOut();
  ASSIGN_OR_RETURN(memory_, DeviceBuffer::Allocate(ledger, MemoryKind::kWorkspace, taken_));
  // Columns beyond a matrix's are zero and stay so.
  RETURN_IF_ERROR(CudaStatus(cudaMemset(memory_.data(), 0, static_cast<size_t>(taken_)),
                             "clearing the workspace"));
  base_ = memory_.data();
  LayOut();
  RETURN_IF_ERROR(CudaStatus(cudaMemcpy(device_.kept_ids, config_.kept_ids.data(),
                                        config_.kept_ids.size() * 4, cudaMemcpyHostToDevice),
                             "uploading the kept ids"));
  const int64_t logits = int64_t{limits_.max_logits_rows} * config_.vocab_size;
  void* pinned = nullptr;
  const auto pin = [&](int64_t bytes) {
    return CudaStatus(cudaMallocHost(&pinned, static_cast<size_t>(bytes)), "pinning host memory");
  };
  RETURN_IF_ERROR(pin(fixed_bytes_ + table_entries_ * 4));
  staging_ = static_cast<uint8_t*>(pinned);
  RETURN_IF_ERROR(pin(limits_.max_logits_rows * int64_t{sizeof(cuda::RowChoice)}));
  host_choices_ = static_cast<cuda::RowChoice*>(pinned);
  if (can_draft()) {
    RETURN_IF_ERROR(
        pin(int64_t{max_draft_rows_} * kMaxLoopTokens * int64_t{sizeof(cuda::DraftedToken)}));
    host_drafted_ = static_cast<cuda::DraftedToken*>(pinned);
  }
  RETURN_IF_ERROR(pin(limits_.max_logits_rows * int64_t{sizeof(cuda::CandidateIds)}));
  host_ids_ = static_cast<cuda::CandidateIds*>(pinned);
  near_.reserve(kNearBands * kNearBandIds);
  RETURN_IF_ERROR(pin(logits * 4));
  host_logits_ = static_cast<float*>(pinned);
  has_logits_.resize(static_cast<size_t>(limits_.max_logits_rows));
  row_of_id_ = RowOfId(config_);
  return absl::OkStatus();
}

CudaForward::~CudaForward() {
  DropGraphs();
  cudaFreeHost(staging_);
  cudaFreeHost(host_choices_);
  cudaFreeHost(host_drafted_);
  cudaFreeHost(host_ids_);
  cudaFreeHost(host_logits_);
  if (done_ != nullptr) cudaEventDestroy(done_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void CudaForward::DropGraphs() {
  for (const auto& [key, graph] : graphs_) cudaGraphExecDestroy(graph);
  for (const auto& [key, graph] : draft_graphs_) cudaGraphExecDestroy(graph);
  graphs_.clear();
  draft_graphs_.clear();
}

absl::Status CudaForward::Attach(const KvMemory& memory, const KvLayout& layout) {
  DropGraphs();
  kv_ = memory;
  layout_ = layout;
  return absl::OkStatus();
}

// Page tables have places for most steps, not for whatever sequences could ask for: a step that
// has more of them is run in parts.
absl::Status CudaForward::CheckTables(absl::Span<const StepSequence> sequences) const {
  int64_t num_entries = 0;
  for (const StepSequence& sequence : sequences) {
    num_entries += static_cast<int64_t>(sequence.page_table.size());
  }
  if (num_entries <= table_entries_) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the page tables of ", sequences.size(), " sequences have ", num_entries,
                   " entries, one step at most ", table_entries_, ": run fewer at once"));
}

CudaStepShape CudaForward::Stage(absl::Span<const StepSequence> sequences) {
  cuda::StepCounts counts = {};
  int32_t table_offset = 0;
  CudaStepShape shape;
  bool has_few_rows_each = true;
  const int32_t group_rows = cuda::GroupRows(config_.num_heads / config_.num_kv_heads);
  for (const StepSequence& sequence : sequences) {
    const auto num_tokens = static_cast<int32_t>(sequence.token_ids.size());
    const int32_t end = sequence.start_position + num_tokens;
    for (int32_t i = 0; i < num_tokens; ++i) {
      const int32_t row = counts.num_rows + i;
      Staged(device_.token_ids)[row] = RowOf(sequence.token_ids[i]);
      Staged(device_.positions)[row] = sequence.start_position + i;
      if (i >= num_tokens - sequence.num_logits) {
        shape.gathers_logits |= counts.num_logits_rows != row;
        Staged(device_.logits_rows)[counts.num_logits_rows++] = row;
      }
    }
    for (int32_t first = 0; first < num_tokens; first += group_rows) {
      const int32_t rows = std::min(group_rows, num_tokens - first);
      Staged(device_.groups)[counts.num_row_groups++] = {
          .first_row = counts.num_rows + first,
          .num_rows = rows,
          .position = sequence.start_position + first,
          .table_offset = table_offset,
          .rows_before = first};
      shape.max_group_rows = std::max(shape.max_group_rows, rows);
    }
    has_few_rows_each &= num_tokens <= kMaxSequenceSplitRows;
    counts.num_rows += num_tokens;
    shape.max_chunks = std::max(shape.max_chunks, cuda::NumChunks(end));
    std::copy(sequence.page_table.begin(), sequence.page_table.end(),
              Staged(device_.page_tables) + table_offset);
    table_offset += static_cast<int32_t>(sequence.page_table.size());
  }
  *Staged(device_.counts) = counts;
  staged_bytes_ = fixed_bytes_ + int64_t{table_offset} * 4;
  num_logits_rows_ = counts.num_logits_rows;
  has_candidates_ = shape.has_candidates = StageQueries(sequences);
  RoundUpShape(counts, has_few_rows_each, &shape);
  return shape;
}

// The bounds that matter for time, so that few graphs serve all steps.
void CudaForward::RoundUpShape(const cuda::StepCounts& counts, bool has_few_rows_each,
                               CudaStepShape* shape) const {
  const int32_t heads = config_.num_heads / config_.num_kv_heads;
  const int32_t one_tile_rows = std::max(cuda::kTileQueries / heads, 1);
  const int32_t least = counts.num_rows == 1 ? 1 : 8;  // one row has kernels of its own
  shape->max_rows = std::min(Bucket(counts.num_rows, least),
                             static_cast<int32_t>(RoundUp(limits_.max_step_tokens, kRowsOfBlock)));
  shape->max_groups = Bucket(counts.num_row_groups, 1);
  shape->max_chunks = Bucket(shape->max_chunks, 1);
  shape->max_group_rows =
      shape->max_group_rows <= one_tile_rows ? one_tile_rows : cuda::GroupRows(heads);
  shape->max_logits_rows = counts.num_logits_rows == 0 ? 0 : Bucket(counts.num_logits_rows, least);
  const int32_t tiles = cuda::QueryTiles(shape->max_group_rows, heads);
  shape->splits_chunks = has_few_rows_each && shape->max_rows <= kMaxSplitRows &&
                         shape->max_groups * shape->max_chunks * tiles <= kMaxPartialTiles;
  if (shape->splits_chunks) return;
  // A step with prompts hardly feels these.
  shape->max_groups = shape->max_rows;
  shape->max_group_rows = cuda::GroupRows(heads);
  shape->max_chunks = 0;
  shape->gathers_logits = shape->max_logits_rows > 0;
}

absl::Status CudaForward::Upload() {
  const int64_t first_byte = has_candidates_ ? 0 : queries_bytes_;
  return CudaStatus(cudaMemcpyAsync(base_ + first_byte, staging_ + first_byte,
                                    static_cast<size_t>(staged_bytes_ - first_byte),
                                    cudaMemcpyHostToDevice, stream_),
                    "uploading a step");
}

absl::Status CudaForward::Run(absl::Span<const StepSequence> sequences) {
  RETURN_IF_ERROR(CheckTables(sequences));
  const CudaStepShape shape = Stage(sequences);
  ASSIGN_OR_RETURN(const cudaGraphExec_t graph, GraphFor(shape));
  RETURN_IF_ERROR(Upload());
  RETURN_IF_ERROR(CudaStatus(cudaGraphLaunch(graph, stream_), "launching a step"));
  if (num_logits_rows_ > 0) {
    RETURN_IF_ERROR(
        CudaStatus(cudaMemcpyAsync(host_choices_, device_.choices,
                                   static_cast<size_t>(num_logits_rows_) * sizeof(cuda::RowChoice),
                                   cudaMemcpyDeviceToHost, stream_),
                   "fetching tokens"));
  }
  if (has_candidates_) RETURN_IF_ERROR(FetchCandidates());
  has_logits_.assign(has_logits_.size(), false);
  return WaitForDevice();
}

absl::Status CudaForward::WaitForDevice() {
  RETURN_IF_ERROR(CudaStatus(cudaEventRecord(done_, stream_), "recording a step"));
  const auto begin = std::chrono::steady_clock::now();
  for (int64_t polls = 0;; ++polls) {
    const cudaError_t state = cudaEventQuery(done_);
    if (state != cudaErrorNotReady) return CudaStatus(state, "running a step");
    if (polls % 64 != 63) continue;
    const auto waited = std::chrono::steady_clock::now() - begin;
    if (waited > kDeviceTimeout) {
      return absl::DeadlineExceededError("the device did not finish a step in 60 s");
    }
    // A step of one small model ends within a millisecond or two; longer ones are prompts.
    if (waited > std::chrono::milliseconds(5)) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
}

absl::StatusOr<absl::Span<float>> CudaForward::Logits(int32_t row) {
  float* host = host_logits_ + int64_t{row} * config_.vocab_size;
  if (!has_logits_[row]) {
    const int64_t num_rows = config_.num_embedding_rows();
    RETURN_IF_ERROR(CudaStatus(
        cudaMemcpyAsync(host, device_.logits + row * num_rows, static_cast<size_t>(num_rows) * 4,
                        cudaMemcpyDeviceToHost, stream_),
        "fetching logits"));
    RETURN_IF_ERROR(WaitForDevice());
    if (!row_of_id_.empty()) ExpandTrimmed(host);
    has_logits_[row] = true;
  }
  return absl::MakeSpan(host, static_cast<size_t>(config_.vocab_size));
}

// From the rows of the head to all ids, in place.
void CudaForward::ExpandTrimmed(float* logits) const {
  const std::vector<float> kept(logits, logits + config_.kept_ids.size());
  std::fill(logits, logits + config_.vocab_size, kNeverWrittenLogit);
  for (size_t i = 0; i < kept.size(); ++i) logits[config_.kept_ids[i]] = kept[i];
}

GreatestLogit CudaForward::GreatestOf(const cuda::RowChoice& choice) const {
  const uint64_t rank = choice.rank;
  const auto ordered = static_cast<uint32_t>(rank >> 32);
  const uint32_t bits = (ordered & 0x80000000u) ? ordered & 0x7fffffffu : ~ordered;
  const auto best = static_cast<int32_t>(~static_cast<uint32_t>(rank));
  return {.token_id = IdOf(best),
          .value = std::bit_cast<float>(bits),
          .probability =
              with_probabilities_
                  ? 1.0f / std::accumulate(choice.exp_sums, choice.exp_sums + cuda::kExpSums, 0.0f)
                  : std::numeric_limits<float>::quiet_NaN()};
}

int64_t CudaForward::workspace_bytes() const { return memory_.num_bytes(); }

absl::StatusOr<cudaGraphExec_t> CudaForward::GraphFor(const CudaStepShape& shape) {
  const auto found = graphs_.find(shape.key());
  if (found != graphs_.end()) return found->second;
  RETURN_IF_ERROR(CudaStatus(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal),
                             "recording a graph"));
  const cudaError_t recorded = Record(shape);
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream_, &graph);
  RETURN_IF_ERROR(CudaStatus(recorded, "recording a step"));
  RETURN_IF_ERROR(CudaStatus(ended, "ending a graph"));
  ASSIGN_OR_RETURN(const cudaGraphExec_t executable, Instantiate(graph));
  graphs_.emplace(shape.key(), executable);
  return executable;
}

absl::StatusOr<cudaGraphExec_t> CudaForward::Instantiate(cudaGraph_t graph) {
  cudaGraphExec_t executable = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  RETURN_IF_ERROR(CudaStatus(made, "making a graph"));
  return executable;
}

}  // namespace tandem
