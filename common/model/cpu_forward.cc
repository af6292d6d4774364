#include "common/model/cpu_forward.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "common/kernels/cpu/elementwise.h"
#include "common/model/trimmed_head.h"

namespace tandem {

CpuForward::CpuForward(const ModelConfig& config, const LlamaWeights& weights,
                       const ExecutorLimits& limits, cpu::ThreadPool& pool)
    : config_(config),
      weights_(weights),
      limits_(limits),
      pool_(pool),
      q_dim_(int64_t{config.num_heads} * config.head_dim),
      kv_dim_(int64_t{config.num_kv_heads} * config.head_dim),
      residual_(Buffer(limits.max_step_tokens, config.hidden_dim)),
      normed_(Buffer(limits.max_step_tokens, config.hidden_dim)),
      q_(Buffer(limits.max_step_tokens, q_dim_)),
      k_(Buffer(limits.max_step_tokens, kv_dim_)),
      v_(Buffer(limits.max_step_tokens, kv_dim_)),
      attention_(Buffer(limits.max_step_tokens, q_dim_)),
      gate_(Buffer(limits.max_step_tokens, config.ffn_dim)),
      up_(Buffer(limits.max_step_tokens, config.ffn_dim)),
      cosines_(Buffer(limits.max_step_tokens, config.rope_dim / 2)),
      sines_(Buffer(limits.max_step_tokens, config.rope_dim / 2)),
      logits_(new float[static_cast<size_t>(limits.max_logits_rows) * config.vocab_size]),
      activations_(limits.max_step_tokens,
                   std::max<int64_t>({config.hidden_dim, q_dim_, config.ffn_dim})),
      attention_workspace_(limits.max_step_tokens, limits.max_positions, config.num_heads,
                           config.head_dim, pool.num_threads()) {
  const auto max_rows = static_cast<size_t>(limits.max_step_tokens);
  token_ids_.reserve(max_rows);
  positions_.reserve(max_rows);
  logits_rows_.reserve(max_rows);
  sequences_.reserve(max_rows);
  workspace_bytes_ += int64_t{limits.max_logits_rows} * config.vocab_size * sizeof(float);
  if (config.kept_ids.empty()) return;
  const int32_t num_rows = config.num_embedding_rows();
  kept_logits_ = Buffer(limits.max_logits_rows, num_rows);
  row_of_id_ = RowOfId(config);
}

std::vector<float> CpuForward::Buffer(int64_t rows, int64_t cols) {
  workspace_bytes_ += rows * cols * static_cast<int64_t>(sizeof(float));
  return std::vector<float>(static_cast<size_t>(rows * cols));
}

absl::Span<float> CpuForward::Logits(int32_t row) {
  const auto vocab = static_cast<size_t>(config_.vocab_size);
  return {logits_.get() + static_cast<size_t>(row) * vocab, vocab};
}

void CpuForward::Run(absl::Span<const StepSequence> sequences, const KvMemory& memory,
                     const KvLayout& layout) {
  Gather(sequences);
  for (int32_t i = 0; i < config_.num_layers; ++i) {
    AttentionBlock(weights_.layers[i], i, memory, layout);
    FeedForwardBlock(weights_.layers[i]);
  }
  Head();
}

void CpuForward::LearnKeys() {
  // Any tokens do: text gives a little more, and ids need no tokenizer. They are the same
  // at each load, so that keys are too.
  constexpr int32_t kTokens = 64;
  constexpr int32_t kSpread = 4096;  // positions that queries are taken to be spread over
  const KvLayout layout = {.num_layers = config_.num_layers,
                           .num_kv_heads = config_.num_kv_heads,
                           .head_dim = config_.head_dim,
                           .k_type = KvType::kF16,
                           .v_type = KvType::kF16,
                           .page_positions = kTokens};
  std::vector<uint8_t> page(static_cast<size_t>(layout.page_bytes()));
  const KvMemory memory = {.base = page.data(), .page_bytes = layout.page_bytes(), .num_pages = 1};
  std::vector<int32_t> token_ids;
  std::minstd_rand random(1);
  for (int32_t i = 0; i < std::min(kTokens, limits_.max_positions); ++i) {
    token_ids.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(config_.vocab_size)));
  }
  auto feedback = std::make_unique<cpu::KeyFeedback>(config_.num_layers, config_.num_heads,
                                                     config_.num_kv_heads, config_.head_dim);
  key_offset_ =
      std::make_unique<KeyOffset>(config_.num_layers, config_.num_kv_heads, config_.head_dim);
  observer_ = feedback.get();
  const int32_t page_table[] = {0};
  const auto step_tokens = static_cast<size_t>(limits_.max_step_tokens);
  for (size_t start = 0; start < token_ids.size(); start += step_tokens) {
    const StepSequence step = {.start_position = static_cast<int32_t>(start),
                               .token_ids = absl::MakeSpan(token_ids).subspan(start, step_tokens),
                               .page_table = page_table};
    Run({&step, 1}, memory, layout);
  }
  observer_ = nullptr;
  feedback->Build(config_.rope_inv_freq.data(), config_.rope_dim, kSpread);
  key_offset_->Build(config_.rope_inv_freq.data(), config_.rope_dim, kSpread);
  key_feedback_ = std::move(feedback);
  workspace_bytes_ += int64_t{config_.num_layers} * config_.num_kv_heads * config_.head_dim *
                      config_.head_dim * static_cast<int64_t>(sizeof(float));
}

// Lays the sequences' rows out one after the other and looks their tokens up.
void CpuForward::Gather(absl::Span<const StepSequence> sequences) {
  token_ids_.clear();
  positions_.clear();
  logits_rows_.clear();
  sequences_.clear();
  for (const StepSequence& sequence : sequences) {
    const auto first_row = static_cast<int32_t>(token_ids_.size());
    const auto num_rows = static_cast<int32_t>(sequence.token_ids.size());
    sequences_.push_back({.page_table = sequence.page_table.data(),
                          .start_position = sequence.start_position,
                          .num_rows = num_rows,
                          .first_row = first_row});
    for (int32_t i = 0; i < num_rows; ++i) {
      token_ids_.push_back(sequence.token_ids[i]);
      positions_.push_back(sequence.start_position + i);
      if (i >= num_rows - sequence.num_logits) logits_rows_.push_back(first_row + i);
    }
  }
  num_rows_ = static_cast<int64_t>(token_ids_.size());
  pool_.Run(static_cast<int32_t>(num_rows_), [&](int32_t row, int32_t) {
    const int32_t id = token_ids_[row];
    cpu::UnpackRow(weights_.embedding, row_of_id_.empty() ? id : row_of_id_[id],
                   residual_.data() + int64_t{row} * config_.hidden_dim);
  });
  cpu::RopeAngles(positions_.data(), num_rows_, config_.rope_inv_freq.data(), config_.rope_dim / 2,
                  cosines_.data(), sines_.data());
}

void CpuForward::AttentionBlock(const LayerWeights& layer, int32_t layer_index,
                                const KvMemory& memory, const KvLayout& layout) {
  cpu::RmsNorm(residual_.data(), layer.attention_norm.data(), config_.norm_epsilon, num_rows_,
               config_.hidden_dim, normed_.data(), pool_);
  activations_.Set(normed_.data(), num_rows_, config_.hidden_dim, pool_);
  const cpu::MatMulArgs qkv[] = {
      {.weight = &layer.q, .y = q_.data(), .y_stride = q_dim_},
      {.weight = &layer.k, .y = k_.data(), .y_stride = kv_dim_},
      {.weight = &layer.v, .y = v_.data(), .y_stride = kv_dim_},
  };
  cpu::MatMul(activations_, qkv, 3, pool_);

  if (observer_ != nullptr) {
    observer_->Observe(layer_index, q_.data(), q_dim_, num_rows_);
    key_offset_->Observe(layer_index, k_.data(), num_rows_);
  }

  cpu::RopeArgs rope = {.x = q_.data(),
                        .cosines = cosines_.data(),
                        .sines = sines_.data(),
                        .num_rows = num_rows_,
                        .x_stride = q_dim_,
                        .num_heads = config_.num_heads,
                        .head_dim = config_.head_dim,
                        .rope_dim = config_.rope_dim};
  cpu::Rope(rope, pool_);
  rope.x = k_.data();
  rope.x_stride = kv_dim_;
  rope.num_heads = config_.num_kv_heads;
  cpu::Rope(rope, pool_);
  if (key_offset_ != nullptr && observer_ == nullptr) {
    key_offset_->Subtract(layer_index, k_.data(), num_rows_);
  }

  const auto num_sequences = static_cast<int32_t>(sequences_.size());
  cpu::KvAppend(
      {.k = k_.data(),
       .v = v_.data(),
       .k_stride = kv_dim_,
       .v_stride = kv_dim_,
       .sequences = sequences_.data(),
       .num_sequences = num_sequences,
       .layer = layer_index,
       .pool = memory.base,
       .pool_page_bytes = memory.page_bytes,
       .layout = layout,
       .k_feedback = key_feedback_ == nullptr ? nullptr : key_feedback_->Matrices(layer_index)},
      pool_);
  cpu::Attention({.q = q_.data(),
                  .q_stride = q_dim_,
                  .out = attention_.data(),
                  .out_stride = q_dim_,
                  .num_heads = config_.num_heads,
                  .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
                  .sequences = sequences_.data(),
                  .num_sequences = num_sequences,
                  .layer = layer_index,
                  .pool = memory.base,
                  .pool_page_bytes = memory.page_bytes,
                  .layout = layout},
                 attention_workspace_, pool_);

  activations_.Set(attention_.data(), num_rows_, q_dim_, pool_);
  const cpu::MatMulArgs output = {.weight = &layer.attention_output,
                                  .y = residual_.data(),
                                  .y_stride = config_.hidden_dim,
                                  .accumulate = true};
  cpu::MatMul(activations_, &output, 1, pool_);
}

void CpuForward::FeedForwardBlock(const LayerWeights& layer) {
  cpu::RmsNorm(residual_.data(), layer.ffn_norm.data(), config_.norm_epsilon, num_rows_,
               config_.hidden_dim, normed_.data(), pool_);
  activations_.Set(normed_.data(), num_rows_, config_.hidden_dim, pool_);
  const cpu::MatMulArgs gate_up[] = {
      {.weight = &layer.gate, .y = gate_.data(), .y_stride = config_.ffn_dim},
      {.weight = &layer.up, .y = up_.data(), .y_stride = config_.ffn_dim},
  };
  cpu::MatMul(activations_, gate_up, 2, pool_);
  cpu::SiluMul(gate_.data(), up_.data(), num_rows_, config_.ffn_dim, gate_.data(), pool_);
  activations_.Set(gate_.data(), num_rows_, config_.ffn_dim, pool_);
  const cpu::MatMulArgs down = {.weight = &layer.down,
                                .y = residual_.data(),
                                .y_stride = config_.hidden_dim,
                                .accumulate = true};
  cpu::MatMul(activations_, &down, 1, pool_);
}

void CpuForward::Head() {
  const auto num_logits = static_cast<int64_t>(logits_rows_.size());
  if (num_logits == 0) return;
  const int64_t dim = config_.hidden_dim;
  for (int64_t i = 0; i < num_logits; ++i) {
    const float* from = residual_.data() + logits_rows_[i] * dim;
    std::copy(from, from + dim, normed_.data() + i * dim);
  }
  cpu::RmsNorm(normed_.data(), weights_.output_norm.data(), config_.norm_epsilon, num_logits, dim,
               normed_.data(), pool_);
  activations_.Set(normed_.data(), num_logits, dim, pool_);
  const bool trimmed = !config_.kept_ids.empty();
  const cpu::MatMulArgs head = {.weight = &weights_.head(),
                                .y = trimmed ? kept_logits_.data() : logits_.get(),
                                .y_stride = config_.num_embedding_rows()};
  cpu::MatMul(activations_, &head, 1, pool_);
  if (!trimmed) return;
  pool_.Run(static_cast<int32_t>(num_logits), [&](int32_t row, int32_t) {
    const float* kept = kept_logits_.data() + int64_t{row} * config_.num_embedding_rows();
    const absl::Span<float> logits = Logits(row);
    std::fill(logits.begin(), logits.end(), kNeverWrittenLogit);
    for (size_t i = 0; i < config_.kept_ids.size(); ++i) logits[config_.kept_ids[i]] = kept[i];
  });
}

}  // namespace tandem
