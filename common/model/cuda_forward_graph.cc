// What a step launches: recorded once for each shape of step.
#include <algorithm>

#include "common/model/cuda_forward.h"

namespace tandem {
namespace {

using cuda::AttentionSplit;
using cuda::MatmulEnd;

// Weights to have at hand when the next kernel starts: the first bytes of each of `kRegions`
// parts of a matrix, `bytes` in all. Much of the second cache, or nothing where it is small.
cuda::WeightsAhead Ahead(const cuda::DeviceMatrix& matrix, int64_t bytes) {
  constexpr int32_t kRegions = 128;
  const int64_t all = cuda::MatrixBytes(matrix.format, matrix.num_rows, matrix.num_cols);
  const int64_t stride = all / kRegions / 16 * 16;
  const int64_t region_bytes = std::min(stride, bytes / kRegions / 16 * 16);
  if (region_bytes == 0) return {};
  return {.data = matrix.chunks,
          .num_regions = kRegions,
          .region_bytes = static_cast<int32_t>(region_bytes),
          .stride = stride};
}

}  // namespace

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
  return cuda::WantsManyRows(call.input.weights.num_rows, max_rows, num_processors_)
             ? cuda::LaunchMatmulManyRows(call, max_rows, options)
             : cuda::LaunchMatmulFewRows(call, max_rows, options);
}

cudaError_t CudaForward::Record(const CudaStepShape& shape) {
  const cudaError_t error = RecordLogits(shape);
  return error != cudaSuccess || shape.max_logits_rows == 0 ? error : RecordChoices(shape);
}

cudaError_t CudaForward::RecordLogits(const CudaStepShape& shape) {
  cuda::EmbedCall embed = {.embedding = weights_.embedding,
                           .token_ids = device_.token_ids,
                           .positions = device_.positions,
                           .counts = device_.counts,
                           .out = ResidualWith(weights_.layers[0].attention_norm),
                           .inverse_frequencies = weights_.rope_inv_freq,
                           .rope_dim = config_.rope_dim,
                           .rope = device_.rope,
                           .choices = device_.choices,
                           .max_logits_rows = shape.max_logits_rows};
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
  const cuda::MatmulCall output = {.input = {.weights = layer.attention_output,
                                             .x = device_.attention,
                                             .num_rows = num_rows,
                                             .ahead = Ahead(layer.gate_up, ahead_bytes_)},
                                   .end = MatmulEnd::kResidual,
                                   .residual_output = ResidualWith(layer.ffn_norm)};
  if (const cudaError_t error = Matmul(output, shape.max_rows); error != cudaSuccess) return error;
  const cuda::MatmulCall gate_up = {.input = {.weights = layer.gate_up,
                                              .x = device_.hidden,
                                              .norm = RmsOf(device_.square_sums),
                                              .num_rows = num_rows,
                                              .ahead = Ahead(layer.down, ahead_bytes_)},
                                    .end = MatmulEnd::kGated,
                                    .gated_output = device_.gated};
  if (const cudaError_t error = Matmul(gate_up, shape.max_rows); error != cudaSuccess) return error;
  const bool is_last = index + 1 == config_.num_layers;
  const cuda::DeviceMatrix& next =
      is_last ? weights_.head : weights_.layers[index + 1].qkv[0].matrix;
  const cuda::MatmulCall down = {
      .input = {.weights = layer.down,
                .x = device_.gated,
                .num_rows = num_rows,
                .ahead = Ahead(next, ahead_bytes_)},
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
      .out = device_.attention,
      .num_processors = num_processors_,
      .ahead = {Ahead(weights_.layers[index].attention_output, ahead_bytes_),
                Ahead(weights_.layers[index].gate_up, ahead_bytes_)}};
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
                       .stride = config_.num_embedding_rows(),
                       .num_outputs = config_.num_embedding_rows(),
                       .choices = device_.choices,
                       .num_ids = num_drafted_ids()}};
  return Matmul(head, shape.max_logits_rows);
}

cuda::ExpSumsCall CudaForward::ExpSums() const {
  return {.logits = device_.logits,
          .stride = config_.num_embedding_rows(),
          .num_ids = num_drafted_ids(),
          .num_rows = &device_.counts->num_logits_rows,
          .choices = device_.choices};
}

cudaError_t CudaForward::RecordChoices(const CudaStepShape& shape) {
  const cuda::LaunchOptions options = {.stream = stream_, .may_overlap = may_overlap_};
  cudaError_t error = cudaSuccess;
  if (with_probabilities_) error = cuda::LaunchExpSums(ExpSums(), shape.max_logits_rows, options);
  if (error != cudaSuccess || !shape.has_candidates) return error;
  const cuda::CandidatesCall candidates = {
      .logits = device_.logits,
      .stride = config_.num_embedding_rows(),
      .num_logits = num_drafted_ids(),
      .kept_ids = config_.kept_ids.empty() ? nullptr : device_.kept_ids,
      .num_rows = &device_.counts->num_logits_rows,
      .choices = device_.choices,
      .rows = device_.candidates,
      .ids = host_ids_};
  return cuda::LaunchCandidates(candidates, shape.max_logits_rows, options);
}

}  // namespace tandem
