#include "common/model/cpu_executor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/model/cpu_forward.h"
#include "common/model/weights.h"

namespace tandem {
namespace {

// More than any page that is worth having; keeps the products small.
constexpr int64_t kMaxPagePositions = 1 << 20;

absl::Status CheckOptions(const CpuExecutorOptions& options) {
  const ExecutorLimits& limits = options.limits;
  if (limits.max_step_tokens < 1 || limits.max_logits_rows < 1 || limits.max_positions < 1 ||
      options.num_threads < 1 || options.page_positions % 8 != 0 || options.page_positions < 0 ||
      options.page_positions > kMaxPagePositions) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "limits must be at least 1 and page positions a multiple of 8: %d step tokens, %d logits "
        "rows, %d positions, %d threads, %d page positions",
        limits.max_step_tokens, limits.max_logits_rows, limits.max_positions, options.num_threads,
        options.page_positions));
  }
  return absl::OkStatus();
}

class CpuExecutor final : public Executor {
 public:
  CpuExecutor(ModelConfig config, const CpuExecutorOptions& options,
              std::unique_ptr<cpu::ThreadPool> pool, LlamaWeights weights)
      : config_(std::move(config)),
        limits_(options.limits),
        page_positions_(options.page_positions),
        layout_(KvLayoutFor(config_, options.k_type, options.v_type, options.page_positions)),
        pool_(std::move(pool)),
        weights_(std::move(weights)),
        forward_(config_, weights_, limits_, *pool_) {
    if (options.k_type == KvType::k4) forward_.LearnKeys();
  }

  const ModelConfig& config() const override { return config_; }
  const ExecutorLimits& limits() const override { return limits_; }
  const KvLayout& kv_layout() const override { return layout_; }
  int64_t weight_bytes() const override { return weights_.num_bytes; }
  int64_t workspace_bytes() const override { return forward_.workspace_bytes(); }

  absl::Status AttachKv(const KvMemory& memory) override;

  absl::Status Forward(absl::Span<const StepSequence> sequences) override {
    RETURN_IF_ERROR(Validate(sequences));
    if (sequences.empty()) return absl::OkStatus();
    forward_.Run(sequences, memory_, layout_);
    return absl::OkStatus();
  }

  absl::Span<float> Logits(int32_t row) override {
    TANDEM_CHECK(row >= 0 && row < limits_.max_logits_rows);
    return forward_.Logits(row);
  }

 private:
  absl::Status Validate(absl::Span<const StepSequence> sequences) const;
  absl::Status ValidateSequence(const StepSequence& sequence) const;

  ModelConfig config_;
  ExecutorLimits limits_;
  int32_t page_positions_;  // as asked for; 0: fitted to the pool
  KvLayout layout_;
  KvMemory memory_;
  std::unique_ptr<cpu::ThreadPool> pool_;
  LlamaWeights weights_;
  CpuForward forward_;
};

absl::Status CpuExecutor::AttachKv(const KvMemory& memory) {
  KvLayout layout = layout_;
  if (page_positions_ == 0) {
    const int64_t fitting = memory.page_bytes / layout.position_bytes();
    layout.page_positions = static_cast<int32_t>(std::min(fitting, kMaxPagePositions) / 8 * 8);
  }
  if (memory.base == nullptr || memory.num_pages < 1) {
    return absl::InvalidArgumentError("a KV pool without pages");
  }
  if (layout.page_positions == 0 || layout.page_bytes() > memory.page_bytes) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "a page of the pool has %d bytes; %s needs %d for %d positions: use larger pages",
        memory.page_bytes, config_.name,
        layout.position_bytes() * std::max(layout.page_positions, 8),
        std::max(layout.page_positions, 8)));
  }
  layout_ = layout;
  memory_ = memory;
  return absl::OkStatus();
}

absl::Status CpuExecutor::Validate(absl::Span<const StepSequence> sequences) const {
  if (memory_.base == nullptr) return absl::FailedPreconditionError("no KV pool is attached");
  int64_t num_tokens = 0;
  int64_t num_logits = 0;
  for (const StepSequence& sequence : sequences) {
    RETURN_IF_ERROR(ValidateSequence(sequence));
    num_tokens += static_cast<int64_t>(sequence.token_ids.size());
    num_logits += sequence.num_logits;
  }
  if (num_tokens > limits_.max_step_tokens || num_logits > limits_.max_logits_rows) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a step of %d tokens and %d rows of logits; the limits are %d and %d",
                        num_tokens, num_logits, limits_.max_step_tokens, limits_.max_logits_rows));
  }
  return absl::OkStatus();
}

absl::Status CpuExecutor::ValidateSequence(const StepSequence& sequence) const {
  const auto num_tokens = static_cast<int64_t>(sequence.token_ids.size());
  if (num_tokens < 1 || sequence.num_logits < 0 || sequence.num_logits > num_tokens) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d tokens with %d rows of logits", num_tokens, sequence.num_logits));
  }
  const int64_t end = sequence.start_position + num_tokens;
  if (sequence.start_position < 0 || end > limits_.max_positions) {
    return absl::InvalidArgumentError(absl::StrFormat("positions %d to %d; the limit is %d",
                                                      sequence.start_position, end,
                                                      limits_.max_positions));
  }
  const int64_t num_pages = (end + layout_.page_positions - 1) / layout_.page_positions;
  if (static_cast<int64_t>(sequence.page_table.size()) < num_pages) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d positions need %d pages, the table has %d", end, num_pages,
                        sequence.page_table.size()));
  }
  for (const int32_t page : sequence.page_table.subspan(0, static_cast<size_t>(num_pages))) {
    if (page < 0 || page >= memory_.num_pages) {
      return absl::InvalidArgumentError(
          absl::StrFormat("page %d; the pool has %d", page, memory_.num_pages));
    }
  }
  for (const int32_t id : sequence.token_ids) {
    if (id < 0 || id >= config_.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrFormat("token id %d; the vocabulary has %d", id, config_.vocab_size));
    }
  }
  return absl::OkStatus();
}

}  // namespace

KvLayout KvLayoutFor(const ModelConfig& config, KvType k_type, KvType v_type,
                     int32_t page_positions) {
  return {.num_layers = config.num_layers,
          .num_kv_heads = config.num_kv_heads,
          .head_dim = config.head_dim,
          .k_type = k_type,
          .v_type = v_type,
          .page_positions = page_positions};
}

absl::StatusOr<std::unique_ptr<Executor>> CreateCpuExecutor(const GgufFile& file,
                                                            const CpuExecutorOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  ASSIGN_OR_RETURN(ModelConfig config, ModelConfigFromGguf(file));
  auto pool = std::make_unique<cpu::ThreadPool>(options.num_threads);
  ASSIGN_OR_RETURN(LlamaWeights weights,
                   LoadWeights(file, config, *pool, options.progress, options.weight_precision));
  return std::make_unique<CpuExecutor>(std::move(config), options, std::move(pool),
                                       std::move(weights));
}

}  // namespace tandem
