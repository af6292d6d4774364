#include "common/model/cuda_forward.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"

namespace tandem {
namespace {

using cuda::AttentionSplit;
using cuda::MatmulEnd;

constexpr int64_t kAlignment = 256;
constexpr int64_t kRowsOfBlock = 64;  // the kernels for many rows read whole blocks
// Chunks of all groups of a step that attention may leave in memory between its blocks.
constexpr int32_t kMaxGroupChunks = 128;
// A step takes milliseconds; a device that takes this long does not answer any more.
constexpr auto kDeviceTimeout = std::chrono::seconds(60);

int64_t RoundUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// Bounds of shapes, so that few graphs serve all steps.
int32_t Bucket(int32_t value, int32_t least) {
  return std::max(least, static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(value))));
}

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
  device_.counts = Take<cuda::StepCounts>(1);
  device_.token_ids = Take<int32_t>(rows);
  device_.positions = Take<int32_t>(rows);
  device_.logits_rows = Take<int32_t>(logits_rows);
  device_.groups = Take<cuda::RowGroup>(rows);
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
      Take<float>(cuda::PartialFloats(kMaxGroupChunks, config_.num_kv_heads, config_.head_dim));
  device_.arrivals = Take<int32_t>(rows * config_.num_kv_heads);
  device_.logits = Take<float>(int64_t{limits_.max_logits_rows} * config_.vocab_size);
  device_.greatest = Take<uint64_t>(logits_rows);
}

absl::StatusOr<std::unique_ptr<CudaForward>> CudaForward::Create(const ModelConfig& config,
                                                                 const CudaWeights& weights,
                                                                 const ExecutorLimits& limits,
                                                                 DeviceLedger* ledger) {
  std::unique_ptr<CudaForward> forward(new CudaForward(config, weights, limits));
  RETURN_IF_ERROR(forward->Allocate(ledger));
  return forward;
}

absl::Status CudaForward::Allocate(DeviceLedger* ledger) {
  RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"));
  RETURN_IF_ERROR(
      CudaStatus(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "making an event"));
  int device = 0;
  int major = 0;
  RETURN_IF_ERROR(CudaStatus(cudaGetDevice(&device), "asking for the device"));
  RETURN_IF_ERROR(
      CudaStatus(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
                 "asking for the architecture"));
  may_overlap_ = major >= 9;
  // A page holds at least 16 positions.
  table_entries_ = int64_t{limits_.max_step_tokens} + int64_t{limits_.max_step_tokens} * 8 +
                   limits_.max_positions;
  LayOut();
  ASSIGN_OR_RETURN(memory_, DeviceBuffer::Allocate(ledger, MemoryKind::kWorkspace, taken_));
  // Columns beyond a matrix's and arrivals are zero and stay so.
  RETURN_IF_ERROR(CudaStatus(cudaMemset(memory_.data(), 0, static_cast<size_t>(taken_)),
                             "clearing the workspace"));
  base_ = memory_.data();
  LayOut();
  const int64_t logits = int64_t{limits_.max_logits_rows} * config_.vocab_size;
  void* pinned = nullptr;
  const auto pin = [&](int64_t bytes) {
    return CudaStatus(cudaMallocHost(&pinned, static_cast<size_t>(bytes)), "pinning host memory");
  };
  RETURN_IF_ERROR(pin(fixed_bytes_ + table_entries_ * 4));
  staging_ = static_cast<uint8_t*>(pinned);
  RETURN_IF_ERROR(pin(limits_.max_logits_rows * 8));
  host_greatest_ = static_cast<uint64_t*>(pinned);
  RETURN_IF_ERROR(pin(logits * 4));
  host_logits_ = static_cast<float*>(pinned);
  has_logits_.resize(static_cast<size_t>(limits_.max_logits_rows));
  return absl::OkStatus();
}

CudaForward::~CudaForward() {
  DropGraphs();
  cudaFreeHost(staging_);
  cudaFreeHost(host_greatest_);
  cudaFreeHost(host_logits_);
  if (done_ != nullptr) cudaEventDestroy(done_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void CudaForward::DropGraphs() {
  for (const auto& [key, graph] : graphs_) cudaGraphExecDestroy(graph);
  graphs_.clear();
}

absl::Status CudaForward::Attach(const KvMemory& memory, const KvLayout& layout) {
  DropGraphs();
  kv_ = memory;
  layout_ = layout;
  return absl::OkStatus();
}

CudaStepShape CudaForward::Stage(absl::Span<const StepSequence> sequences) {
  const auto at = [&]<typename T>(T* device) {
    return reinterpret_cast<T*>(staging_ + (reinterpret_cast<uint8_t*>(device) - base_));
  };
  cuda::StepCounts counts = {};
  int32_t table_offset = 0;
  CudaStepShape shape;
  bool is_one_group_each = true;
  const int32_t group_rows = cuda::GroupRows(config_.num_heads / config_.num_kv_heads);
  for (const StepSequence& sequence : sequences) {
    const auto num_tokens = static_cast<int32_t>(sequence.token_ids.size());
    const int32_t end = sequence.start_position + num_tokens;
    for (int32_t i = 0; i < num_tokens; ++i) {
      const int32_t row = counts.num_rows + i;
      at(device_.token_ids)[row] = sequence.token_ids[i];
      at(device_.positions)[row] = sequence.start_position + i;
      if (i >= num_tokens - sequence.num_logits) {
        shape.gathers_logits |= counts.num_logits_rows != row;
        at(device_.logits_rows)[counts.num_logits_rows++] = row;
      }
    }
    for (int32_t first = 0; first < num_tokens; first += group_rows) {
      const int32_t rows = std::min(group_rows, num_tokens - first);
      at(device_.groups)[counts.num_row_groups++] = {.first_row = counts.num_rows + first,
                                                     .num_rows = rows,
                                                     .position = sequence.start_position + first,
                                                     .table_offset = table_offset};
      shape.max_group_rows = std::max(shape.max_group_rows, rows);
    }
    is_one_group_each &= num_tokens <= group_rows;
    counts.num_rows += num_tokens;
    shape.max_chunks = std::max(shape.max_chunks, cuda::NumChunks(end));
    const int32_t num_pages = (end + layout_.page_positions - 1) / layout_.page_positions;
    std::memcpy(at(device_.page_tables) + table_offset, sequence.page_table.data(),
                static_cast<size_t>(num_pages) * 4);
    table_offset += num_pages;
  }
  *at(device_.counts) = counts;
  staged_bytes_ = fixed_bytes_ + int64_t{table_offset} * 4;
  num_logits_rows_ = counts.num_logits_rows;
  shape.max_rows = std::min(Bucket(counts.num_rows, 8),
                            static_cast<int32_t>(RoundUp(limits_.max_step_tokens, kRowsOfBlock)));
  shape.max_groups = Bucket(counts.num_row_groups, 1);
  shape.max_chunks = Bucket(shape.max_chunks, 1);
  shape.splits_chunks = is_one_group_each && shape.max_groups * shape.max_chunks <= kMaxGroupChunks;
  if (!shape.splits_chunks) shape.max_chunks = 0;
  const int32_t heads = config_.num_heads / config_.num_kv_heads;
  const int32_t one_tile_rows = std::max(16 / heads, 1);
  shape.max_group_rows = shape.max_group_rows <= one_tile_rows ? one_tile_rows : group_rows;
  shape.max_logits_rows = counts.num_logits_rows == 0 ? 0 : Bucket(counts.num_logits_rows, 8);
  return shape;
}

absl::Status CudaForward::Run(absl::Span<const StepSequence> sequences) {
  const CudaStepShape shape = Stage(sequences);
  ASSIGN_OR_RETURN(const cudaGraphExec_t graph, GraphFor(shape));
  RETURN_IF_ERROR(CudaStatus(cudaMemcpyAsync(base_, staging_, static_cast<size_t>(staged_bytes_),
                                             cudaMemcpyHostToDevice, stream_),
                             "uploading a step"));
  RETURN_IF_ERROR(CudaStatus(cudaGraphLaunch(graph, stream_), "launching a step"));
  if (num_logits_rows_ > 0) {
    RETURN_IF_ERROR(CudaStatus(
        cudaMemcpyAsync(host_greatest_, device_.greatest, static_cast<size_t>(num_logits_rows_) * 8,
                        cudaMemcpyDeviceToHost, stream_),
        "fetching tokens"));
  }
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
  const auto vocab_size = static_cast<size_t>(config_.vocab_size);
  if (!has_logits_[row]) {
    RETURN_IF_ERROR(
        CudaStatus(cudaMemcpyAsync(host, device_.logits + int64_t{row} * config_.vocab_size,
                                   vocab_size * 4, cudaMemcpyDeviceToHost, stream_),
                   "fetching logits"));
    RETURN_IF_ERROR(WaitForDevice());
    has_logits_[row] = true;
  }
  return absl::MakeSpan(host, vocab_size);
}

GreatestLogit CudaForward::Greatest(int32_t row) const {
  const uint64_t rank = host_greatest_[row];
  const auto ordered = static_cast<uint32_t>(rank >> 32);
  const uint32_t bits = (ordered & 0x80000000u) ? ordered & 0x7fffffffu : ~ordered;
  return {.token_id = static_cast<int32_t>(~static_cast<uint32_t>(rank)),
          .value = std::bit_cast<float>(bits)};
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
  cudaGraphExec_t executable = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  RETURN_IF_ERROR(CudaStatus(made, "making a graph"));
  graphs_.emplace(shape.key(), executable);
  return executable;
}

cuda::ResidualOutput CudaForward::ResidualWith(const float* norm_weights) const {
  return {.residual = device_.residual,
          .dim = config_.hidden_dim,
          .norm_weights = norm_weights,
          .square_sums = device_.square_sums,
          .quantized = device_.hidden};
}

cuda::RmsScale CudaForward::RmsOf(const float* square_sums) const {
  return {.square_sums = square_sums,
          .num_blocks = config_.hidden_dim / 32,
          .inverse_dim = 1.0f / static_cast<float>(config_.hidden_dim),
          .epsilon = config_.norm_epsilon};
}

cudaError_t CudaForward::Matmul(const cuda::MatmulCall& call, int32_t max_rows) {
  const cuda::LaunchOptions options = {.stream = stream_, .may_overlap = may_overlap_};
  return max_rows <= cuda::kMaxFewRows ? cuda::LaunchMatmulFewRows(call, max_rows, options)
                                       : cuda::LaunchMatmulManyRows(call, max_rows, options);
}

cudaError_t CudaForward::Record(const CudaStepShape& shape) {
  cuda::EmbedCall embed = {.embedding = weights_.embedding,
                           .token_ids = device_.token_ids,
                           .positions = device_.positions,
                           .counts = device_.counts,
                           .out = ResidualWith(weights_.layers[0].attention_norm),
                           .inverse_frequencies = weights_.rope_inv_freq,
                           .rope_dim = config_.rope_dim,
                           .rope = device_.rope,
                           .greatest = device_.greatest,
                           .max_logits_rows = shape.max_logits_rows};
  embed.out.is_first = true;
  // The first kernel waits for the copy before it.
  if (const cudaError_t error = cuda::LaunchEmbed(embed, shape.max_rows, {.stream = stream_});
      error != cudaSuccess) {
    return error;
  }
  for (int32_t i = 0; i < config_.num_layers; ++i) {
    if (const cudaError_t error = RecordLayer(shape, i); error != cudaSuccess) return error;
  }
  return shape.max_logits_rows == 0 ? cudaSuccess : RecordHead(shape);
}

cudaError_t CudaForward::RecordLayer(const CudaStepShape& shape, int32_t index) {
  const CudaLayerWeights& layer = weights_.layers[index];
  const int32_t* num_rows = &device_.counts->num_rows;
  const int32_t qkv_dim = (config_.num_heads + 2 * config_.num_kv_heads) * config_.head_dim;
  for (const CudaMatrixPart& part : layer.qkv) {
    const cuda::MatmulCall call = {.input = {.weights = part.matrix,
                                             .x = device_.hidden,
                                             .norm = RmsOf(device_.square_sums),
                                             .num_rows = num_rows},
                                   .end = MatmulEnd::kFloat,
                                   .float_output = {.values = device_.qkv,
                                                    .stride = qkv_dim,
                                                    .first_col = part.first_col,
                                                    .num_outputs = part.matrix.num_rows}};
    if (const cudaError_t error = Matmul(call, shape.max_rows); error != cudaSuccess) return error;
  }
  if (const cudaError_t error = RecordAttention(shape, index); error != cudaSuccess) return error;
  const cuda::MatmulCall output = {
      .input = {.weights = layer.attention_output, .x = device_.attention, .num_rows = num_rows},
      .end = MatmulEnd::kResidual,
      .residual_output = ResidualWith(layer.ffn_norm)};
  if (const cudaError_t error = Matmul(output, shape.max_rows); error != cudaSuccess) return error;
  const cuda::MatmulCall gate_up = {.input = {.weights = layer.gate_up,
                                              .x = device_.hidden,
                                              .norm = RmsOf(device_.square_sums),
                                              .num_rows = num_rows},
                                    .end = MatmulEnd::kGated,
                                    .gated_output = device_.gated};
  if (const cudaError_t error = Matmul(gate_up, shape.max_rows); error != cudaSuccess) return error;
  const bool is_last = index + 1 == config_.num_layers;
  const cuda::MatmulCall down = {
      .input = {.weights = layer.down, .x = device_.gated, .num_rows = num_rows},
      .end = MatmulEnd::kResidual,
      .residual_output =
          ResidualWith(is_last ? weights_.output_norm : weights_.layers[index + 1].attention_norm)};
  return Matmul(down, shape.max_rows);
}

cudaError_t CudaForward::RecordAttention(const CudaStepShape& shape, int32_t index) {
  const cuda::LaunchOptions options = {.stream = stream_, .may_overlap = may_overlap_};
  const cuda::AttentionCall call = {
      .num_heads = config_.num_heads,
      .num_kv_heads = config_.num_kv_heads,
      .head_dim = config_.head_dim,
      .rope_dim = config_.rope_dim,
      .k_type = layout_.k_type,
      .v_type = layout_.v_type,
      .qkv = device_.qkv,
      .rope = device_.rope,
      .groups = device_.groups,
      .counts = device_.counts,
      .page_tables = device_.page_tables,
      .page_positions = layout_.page_positions,
      .kv = kv_.base,
      .page_bytes = kv_.page_bytes,
      .k_offset = layout_.KOffset(index, 0),
      .v_offset = layout_.VOffset(index, 0),
      .head_stride = layout_.KOffset(index, 1) - layout_.KOffset(index, 0),
      .partial = device_.partial,
      .arrivals = device_.arrivals,
      .out = device_.attention};
  if (!shape.splits_chunks) {
    if (const cudaError_t error = cuda::LaunchAppendKv(call, shape.max_groups, options);
        error != cudaSuccess) {
      return error;
    }
  }
  return cuda::LaunchAttention(
      call, shape.splits_chunks ? AttentionSplit::kByChunk : AttentionSplit::kNone,
      shape.max_group_rows, shape.max_groups, shape.max_chunks, options);
}

cudaError_t CudaForward::RecordHead(const CudaStepShape& shape) {
  const cuda::LaunchOptions options = {.stream = stream_, .may_overlap = may_overlap_};
  if (shape.gathers_logits) {
    const cuda::GatherCall gather = {.row_map = device_.logits_rows,
                                     .counts = device_.counts,
                                     .from = device_.hidden,
                                     .to = device_.last,
                                     .square_sums_from = device_.square_sums,
                                     .square_sums_to = device_.last_square_sums,
                                     .num_blocks = config_.hidden_dim / 32};
    if (const cudaError_t error = cuda::LaunchGather(gather, shape.max_logits_rows, options);
        error != cudaSuccess) {
      return error;
    }
  }
  const int32_t* num_rows = &device_.counts->num_logits_rows;
  const cuda::MatmulCall head = {
      .input = {.weights = weights_.head,
                .x = shape.gathers_logits ? device_.last : device_.hidden,
                .norm =
                    RmsOf(shape.gathers_logits ? device_.last_square_sums : device_.square_sums),
                .num_rows = num_rows},
      .end = MatmulEnd::kFloat,
      .float_output = {.values = device_.logits,
                       .stride = config_.vocab_size,
                       .num_outputs = config_.vocab_size}};
  if (const cudaError_t error = Matmul(head, shape.max_logits_rows); error != cudaSuccess) {
    return error;
  }
  return cuda::LaunchGreatest({.logits = device_.logits,
                               .vocab_size = config_.vocab_size,
                               .num_rows = num_rows,
                               .greatest = device_.greatest},
                              shape.max_logits_rows, options);
}

}  // namespace tandem
