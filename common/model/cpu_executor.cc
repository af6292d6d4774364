#include "common/model/cpu_executor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/model/cpu_forward.h"
#include "common/model/step_checks.h"
#include "common/model/weights.h"

namespace tandem {
namespace {

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
    RETURN_IF_ERROR(CheckStep(sequences, limits_, config_, layout_, memory_));
    if (sequences.empty()) return absl::OkStatus();
    forward_.Run(sequences, memory_, layout_);
    return absl::OkStatus();
  }

  absl::Span<float> Logits(int32_t row) override {
    TANDEM_CHECK(row >= 0 && row < limits_.max_logits_rows);
    return forward_.Logits(row);
  }

 private:
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
  ASSIGN_OR_RETURN(layout_, FitLayout(layout_, page_positions_, 8, memory, config_));
  memory_ = memory;
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
