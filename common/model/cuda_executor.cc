#include "common/model/cuda_executor.h"

#include <cuda_runtime_api.h>

#include <cmath>
#include <limits>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"
#include "common/model/cuda_forward.h"
#include "common/model/cuda_weights.h"
#include "common/model/step_checks.h"

namespace tandem {
namespace {

absl::Status CheckOptions(const CudaExecutorOptions& options) {
  const ExecutorLimits& limits = options.limits;
  const bool is_pair = options.k_type == options.v_type ||
                       (options.k_type == KvType::k8 && options.v_type == KvType::k4);
  if (limits.max_step_tokens < 1 || limits.max_logits_rows < 1 || limits.max_positions < 1 ||
      options.page_positions < 0 || options.page_positions % cuda::kTilePositions != 0 ||
      options.page_positions > kMaxPagePositions || options.ledger == nullptr) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "limits must be at least 1 and page positions a multiple of %d on CUDA: %d step tokens, "
        "%d logits rows, %d positions, %d page positions",
        cuda::kTilePositions, limits.max_step_tokens, limits.max_logits_rows, limits.max_positions,
        options.page_positions));
  }
  if (!is_pair) {
    return absl::InvalidArgumentError(
        "on CUDA keys and values are of one type, or q8 keys with q4 values");
  }
  return absl::OkStatus();
}

absl::Status UseDevice(int32_t device) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    cudaGetLastError();
    return absl::FailedPreconditionError(
        "no CUDA device: is the driver installed, and the device visible here "
        "(nvidia-smi, CUDA_VISIBLE_DEVICES)? --device cpu works without");
  }
  if (device < 0 || device >= count) {
    return absl::InvalidArgumentError(
        absl::StrCat("no CUDA device ", device, ": there are ", count));
  }
  RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device), "choosing a device"));
  cudaDeviceProp properties;
  RETURN_IF_ERROR(CudaStatus(cudaGetDeviceProperties(&properties, device), "asking for a device"));
  const int version = properties.major * 10 + properties.minor;
  if (version < 75) {
    return absl::FailedPreconditionError(absl::StrCat(properties.name, " is of compute capability ",
                                                      properties.major, ".", properties.minor,
                                                      "; Tandem needs 7.5 (Turing) or newer"));
  }
  return absl::OkStatus();
}

class CudaExecutor final : public Executor {
 public:
  CudaExecutor(ModelConfig config, const CudaExecutorOptions& options, CudaWeights weights)
      : config_(std::move(config)),
        options_(options),
        layout_({.num_layers = config_.num_layers,
                 .num_kv_heads = config_.num_kv_heads,
                 .head_dim = config_.head_dim,
                 .k_type = options.k_type,
                 .v_type = options.v_type,
                 .page_positions = options.page_positions}),
        weights_(std::move(weights)) {}

  absl::Status Init() {
    ASSIGN_OR_RETURN(forward_, CudaForward::Create(config_, weights_, options_.limits,
                                                   options_.with_probabilities, options_.ledger));
    return absl::OkStatus();
  }

  const ModelConfig& config() const override { return config_; }
  const ExecutorLimits& limits() const override { return options_.limits; }
  const KvLayout& kv_layout() const override { return layout_; }
  int64_t weight_bytes() const override { return weights_.memory.num_bytes(); }
  int64_t workspace_bytes() const override { return forward_->workspace_bytes(); }

  absl::Status AttachKv(const KvMemory& memory) override {
    RETURN_IF_ERROR(CudaStatus(cudaSetDevice(options_.device), "choosing a device"));
    ASSIGN_OR_RETURN(layout_, FitLayout(layout_, options_.page_positions, cuda::kTilePositions,
                                        memory, config_));
    memory_ = memory;
    RETURN_IF_ERROR(forward_->Attach(memory_, layout_));
    return options_.warms_up ? forward_->WarmUp() : absl::OkStatus();
  }

  absl::Status Forward(absl::Span<const StepSequence> sequences) override {
    RETURN_IF_ERROR(CheckStep(sequences, options_.limits, config_, layout_, memory_));
    if (sequences.empty()) return absl::OkStatus();
    RETURN_IF_ERROR(CudaStatus(cudaSetDevice(options_.device), "choosing a device"));
    return forward_->Run(sequences);
  }

  bool can_draft() const override { return forward_->can_draft(); }
  std::string draft_note() const override { return forward_->draft_note(); }

  absl::Status Draft(absl::Span<const StepSequence> sequences, absl::Span<const DraftLimit> limits,
                     std::vector<std::vector<DraftToken>>* drafts) override {
    RETURN_IF_ERROR(CheckStep(sequences, options_.limits, config_, layout_, memory_));
    RETURN_IF_ERROR(CheckDrafts(sequences, limits, kMaxLoopTokens, options_.limits, layout_));
    if (sequences.empty()) return absl::OkStatus();
    RETURN_IF_ERROR(CudaStatus(cudaSetDevice(options_.device), "choosing a device"));
    return forward_->Draft(sequences, limits, drafts);
  }

  absl::Span<float> Logits(int32_t row) override {
    TANDEM_CHECK(row >= 0 && row < options_.limits.max_logits_rows);
    absl::StatusOr<absl::Span<float>> logits = forward_->Logits(row);
    if (logits.ok()) return *logits;
    // A device that is lost fails the next step with its reason; these rows are seen as bad.
    lost_.assign(static_cast<size_t>(config_.vocab_size), std::numeric_limits<float>::quiet_NaN());
    return absl::MakeSpan(lost_);
  }

  GreatestLogit Greatest(int32_t row) override {
    TANDEM_CHECK(row >= 0 && row < options_.limits.max_logits_rows);
    return forward_->Greatest(row);
  }

  std::optional<RowCandidates> Candidates(int32_t row) override {
    TANDEM_CHECK(row >= 0 && row < options_.limits.max_logits_rows);
    return forward_->Candidates(row);
  }

 private:
  ModelConfig config_;
  CudaExecutorOptions options_;
  KvLayout layout_;
  KvMemory memory_;
  CudaWeights weights_;
  std::unique_ptr<CudaForward> forward_;
  std::vector<float> lost_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Executor>> CreateCudaExecutor(const GgufFile& file,
                                                             const CudaExecutorOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  ASSIGN_OR_RETURN(ModelConfig config, ModelConfigFromGguf(file));
  RETURN_IF_ERROR(UseDevice(options.device));
  const auto num_threads = static_cast<int32_t>(std::max(1u, std::thread::hardware_concurrency()));
  ASSIGN_OR_RETURN(CudaWeights weights, LoadCudaWeights(file, config,
                                                        {.choices = options.weights,
                                                         .num_threads = num_threads,
                                                         .ledger = options.ledger,
                                                         .progress = options.progress}));
  auto executor = std::make_unique<CudaExecutor>(std::move(config), options, std::move(weights));
  RETURN_IF_ERROR(executor->Init());
  return executor;
}

}  // namespace tandem
