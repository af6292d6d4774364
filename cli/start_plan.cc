#include "cli/start_plan.h"

#include <algorithm>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/host_memory.h"
#include "common/base/status_macros.h"
#include "common/device/nvml.h"
#include "common/device/visible_devices.h"
#include "common/gguf/gguf.h"
#include "common/model/config.h"
#include "common/model/cpu_executor.h"
#include "common/model/cuda_format.h"
#include "common/model/weights.h"
#include "common/safetensors/checkpoint.h"
#include "common/tokenizer/tokenizer.h"
#include "common/worker/swap_space.h"
#include "common/worker/worker_options.h"
#include "common/worker/worker_process.h"

namespace tandem {
namespace {

constexpr int32_t kPagePositions = 32;           // of the target, unless the draft needs more
constexpr int32_t kMaxPagePositions = 4096;      // that a target takes
constexpr int32_t kDefaultContextTokens = 8192;  // at most, unless asked for
constexpr int32_t kDefaultContexts = 4;          // that fit the pool
constexpr int32_t kStepTokens = 256;             // rows of a worker's step
constexpr int32_t kLogitsRows = 128;

// A model's file, read as far as planning needs.
struct PlannedModel {
  ModelConfig config;
  int64_t weights_bytes = 0;
  int64_t workspace_bytes = 0;
};

absl::StatusOr<PlannedModel> PlanModel(const std::string& path, const ServeOptions& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, OpenModel(path));
  PlannedModel model;
  ASSIGN_OR_RETURN(model.config, ModelConfigFromGguf(*file));
  if (options.device == "cpu") {
    ASSIGN_OR_RETURN(const std::vector<TensorPlan> tensors, PlanWeights(*file, model.config));
    for (const TensorPlan& tensor : tensors) model.weights_bytes += tensor.packed_bytes;
  } else {
    ASSIGN_OR_RETURN(model.weights_bytes,
                     CudaWeightBytes(*file, model.config,
                                     {.quantize_to_nf4 = options.quantize_to_nf4,
                                      .embedding_on_device = options.embedding == "device"}));
  }
  model.workspace_bytes = EstimateWorkspace(model.config);
  return model;
}

int32_t NumCores() {
  return static_cast<int32_t>(std::max(1u, std::thread::hardware_concurrency()));
}

KvType KvTypeOf(const std::string& name) {
  if (name == "f16") return KvType::kF16;
  return name == "q8" ? KvType::k8 : KvType::k4;
}

// A page holds a multiple of so many positions of the draft.
int64_t DraftUnit(bool is_cpu) { return is_cpu ? 8 : 16; }

// The pool: as many target positions as asked for, draft positions for the same tokens.
absl::Status SizePool(const ServeOptions& options, const PlannedModel& target,
                      const PlannedModel* draft, StartPlan& plan) {
  const KvType type = KvTypeOf(options.target_kv);
  ASSIGN_OR_RETURN(
      plan.resolved.page_positions,
      PlanPagePositions(target.config, type, draft == nullptr ? nullptr : &draft->config,
                        KvTypeOf(options.draft_kv),
                        /*is_cpu=*/options.device == "cpu"));
  const int64_t page_positions = plan.resolved.page_positions;
  plan.page_bytes =
      KvLayoutFor(target.config, type, type, plan.resolved.page_positions).page_bytes();
  const int64_t tokens = options.kv_tokens > 0
                             ? options.kv_tokens
                             : int64_t{kDefaultContexts} * plan.resolved.context_tokens;
  plan.resolved.num_kv_tokens = static_cast<int32_t>(std::min<int64_t>(tokens, INT32_MAX));
  int64_t pages = (tokens + page_positions - 1) / page_positions;
  if (draft != nullptr) {
    const int64_t draft_positions =
        DraftPositionsOfPage(plan.page_bytes, draft->config, KvTypeOf(options.draft_kv),
                             /*is_cpu=*/options.device == "cpu");
    pages += (tokens + draft_positions - 1) / draft_positions;
  }
  plan.resolved.num_kv_pages = static_cast<int32_t>(std::min<int64_t>(pages, INT32_MAX / 2));
  plan.pool_bytes = pages * plan.page_bytes;
  // Each worker has all pages then.
  if (options.pool_transport == "split" && draft != nullptr) plan.pool_bytes *= 2;
  return absl::OkStatus();
}

constexpr int64_t kGpuSwapBytes = int64_t{1} << 30;

// On a CPU host memory is the pool's: there it would only be taken from more pages.
void SizeSwapSpace(const ServeOptions& options, StartPlan& plan) {
  const int64_t unless_said = options.device == "cpu" ? 0 : kGpuSwapBytes;
  plan.resolved.swap_bytes = options.swap_bytes >= 0 ? options.swap_bytes : unless_said;
  plan.swap_bytes =
      worker::SwapSpaceBytes(plan.resolved.swap_bytes, worker::AvailableMemoryBytes());
}

// Room the driver takes beside what is asked for: allocations are rounded up.
constexpr int64_t kGpuSlackBytes = int64_t{64} << 20;

absl::Status PlanGpu(const ServeOptions& options, StartPlan& plan) {
  ASSIGN_OR_RETURN(const int32_t device, worker::ParseDevice(options.device));
  const int64_t num_workers = plan.resolved.models.draft.empty() ? 1 : 2;
  GpuFacts gpu = {.name = "a GPU", .context_bytes = kUnknownContextBytes};
  const absl::StatusOr<std::unique_ptr<Nvml>> nvml = Nvml::Open();
  if (nvml.ok()) {
    ASSIGN_OR_RETURN(const int32_t number, MachineDevice(device, VisibleDevices()));
    ASSIGN_OR_RETURN(gpu, (*nvml)->Facts(number));
  } else if (options.vram_budget_bytes == 0 || !options.dry_run) {
    return absl::FailedPreconditionError(absl::StrCat("--device ", options.device, ": ",
                                                      nvml.status().message(),
                                                      ": --device cpu works without one"));
  }
  plan.gpu_name = gpu.name;
  plan.context_bytes = num_workers * gpu.context_bytes;
  plan.available_bytes = options.vram_budget_bytes;
  if (nvml.ok() && (plan.available_bytes == 0 || gpu.free_bytes < plan.available_bytes)) {
    plan.available_bytes = gpu.free_bytes;
  }
  if (options.vram_budget_bytes > 0) {
    const int64_t room = plan.available_bytes - plan.context_bytes;
    const bool is_split = options.pool_transport == "split";
    plan.resolved.draft_budget_bytes =
        num_workers == 1 ? 0
                         : plan.draft_bytes + plan.draft_workspace_bytes + kGpuSlackBytes +
                               (is_split ? plan.pool_bytes / 2 : 0);
    plan.resolved.target_budget_bytes =
        std::max<int64_t>(room - plan.resolved.draft_budget_bytes, int64_t{1} << 20);
  }
  return absl::OkStatus();
}

absl::Status CheckFit(const StartPlan& plan) {
  if (plan.spare_bytes() >= 0) return absl::OkStatus();
  const int64_t fixed =
      plan.context_bytes + plan.target_bytes + plan.draft_bytes + plan.workspace_bytes;
  const int64_t room = plan.available_bytes - fixed;
  // Target and draft pages shrink together; less a page of each, for rounding.
  const int64_t pages = plan.pool_bytes / plan.page_bytes;
  const int64_t tokens = int64_t{plan.resolved.num_kv_tokens} *
                         std::max<int64_t>(room / plan.page_bytes - 2, 0) / pages;
  const bool fits_alone =
      plan.draft_bytes > 0 &&
      plan.spare_bytes() + plan.draft_bytes + plan.draft_workspace_bytes + plan.context_bytes / 2 >=
          0;
  const std::string remedy = tokens >= 512 ? absl::StrFormat("use --kv-tokens %d", tokens)
                             : fits_alone  ? std::string("use --no-draft")
                                           : std::string("use a smaller model");
  return absl::ResourceExhaustedError(absl::StrFormat(
      "weights%s need %.1f GiB and the page pool %.1f GiB, but only %.1f GiB of %smemory are free "
      "or allowed: %s",
      plan.context_bytes > 0 ? ", workspace and contexts" : "", fixed / kGiB,
      plan.pool_bytes / kGiB, plan.available_bytes / kGiB, plan.context_bytes > 0 ? "device " : "",
      remedy));
}

}  // namespace

int64_t DraftPositionsOfPage(int64_t page_bytes, const ModelConfig& draft, KvType type,
                             bool is_cpu) {
  const int64_t position_bytes = KvLayoutFor(draft, type, type, 8).position_bytes();
  const int64_t unit = DraftUnit(is_cpu);
  return page_bytes / position_bytes / unit * unit;
}

absl::StatusOr<int32_t> PlanPagePositions(const ModelConfig& target, KvType target_type,
                                          const ModelConfig* draft, KvType draft_type,
                                          bool is_cpu) {
  if (draft == nullptr) return kPagePositions;
  const KvLayout page = KvLayoutFor(target, target_type, target_type, kPagePositions);
  const KvLayout of_draft =
      KvLayoutFor(*draft, draft_type, draft_type, static_cast<int32_t>(DraftUnit(is_cpu)));
  const int64_t num_parts = (of_draft.page_bytes() + page.page_bytes() - 1) / page.page_bytes();
  const int64_t positions = num_parts * kPagePositions;
  if (positions <= kMaxPagePositions) return static_cast<int32_t>(positions);
  return absl::InvalidArgumentError(absl::StrFormat(
      "%d positions of the draft %s need a page of %d bytes, the largest of the target %s has %d: "
      "are --target and --draft swapped? Use a smaller draft, or --no-draft",
      of_draft.page_positions, draft->name, of_draft.page_bytes(), target.name,
      page.position_bytes() * kMaxPagePositions));
}

int64_t EstimateWorkspace(const ModelConfig& config) {
  const int64_t row_floats = 4 * int64_t{config.hidden_dim} + 3 * int64_t{config.ffn_dim};
  return kStepTokens * row_floats * int64_t{sizeof(float)} +
         kLogitsRows * int64_t{config.vocab_size} * int64_t{sizeof(float)};
}

std::string StartPlan::ToString() const {
  const int64_t tokens = int64_t{resolved.num_kv_pages} * resolved.page_positions;
  std::string text = absl::StrFormat("plan   target %.0f MiB", target_bytes / kMiB);
  if (draft_bytes > 0) absl::StrAppendFormat(&text, " · draft %.0f MiB", draft_bytes / kMiB);
  absl::StrAppendFormat(
      &text,
      " · workspace %.0f MiB · pages %.0f MiB (%d of %.0f KiB, up to %d target positions; %d "
      "streams of 2048) · spare %.1f GiB\n",
      workspace_bytes / kMiB, pool_bytes / kMiB, resolved.num_kv_pages, page_bytes / 1024.0, tokens,
      tokens / 2048, spare_bytes() / kGiB);
  absl::StrAppendFormat(&text, "       context %d tokens%s · %d threads a worker · ",
                        std::min<int64_t>(resolved.context_tokens, tokens),
                        tokens < resolved.context_tokens ? ", no more fit the pages" : "",
                        resolved.threads);
  if (resolved.swap_bytes > 0) {
    absl::StrAppendFormat(&text, "swap space %.0f MiB of host memory", swap_bytes / kMiB);
    if (swap_bytes < resolved.swap_bytes) {
      absl::StrAppendFormat(&text, " (not %.0f: a quarter of what is free)",
                            resolved.swap_bytes / kMiB);
    }
    absl::StrAppend(&text, " · ");
  }
  if (gpu_name.empty()) {
    absl::StrAppend(&text, "cpu\n");
  } else {
    absl::StrAppendFormat(&text, "%s, about %.0f MiB of contexts, %.2f of %.2f GiB used\n",
                          gpu_name, context_bytes / kMiB, (available_bytes - spare_bytes()) / kGiB,
                          available_bytes / kGiB);
  }
  if (resolved.threads > NumCores()) {
    absl::StrAppendFormat(&text,
                          "       %d threads on %d cores wait for each other: --threads 0 takes as "
                          "many as there are cores\n",
                          resolved.threads, NumCores());
  }
  if (draft_bytes >= target_bytes) {
    absl::StrAppendFormat(&text,
                          "       the draft is no smaller than the target and gains nothing: are "
                          "--target and --draft swapped?\n");
  }
  return text;
}

absl::StatusOr<StartPlan> MakeStartPlan(const ServeOptions& options) {
  StartPlan plan;
  ASSIGN_OR_RETURN(plan.resolved.models, FindModels(options.target, options.draft));
  if (options.no_draft) plan.resolved.models.draft.clear();
  ASSIGN_OR_RETURN(const PlannedModel target, PlanModel(plan.resolved.models.target, options));
  if (options.context_tokens > target.config.context_length) {
    return absl::OutOfRangeError(absl::StrCat("--ctx ", options.context_tokens, " is more than ",
                                              target.config.name, " was trained for: at most ",
                                              target.config.context_length));
  }
  plan.resolved.context_tokens =
      options.context_tokens > 0 ? options.context_tokens
                                 : std::min(target.config.context_length, kDefaultContextTokens);
  plan.resolved.threads = options.threads > 0 ? options.threads : NumCores();
  plan.target_bytes = target.weights_bytes;
  plan.workspace_bytes = target.workspace_bytes;
  std::unique_ptr<PlannedModel> draft;
  if (!plan.resolved.models.draft.empty()) {
    ASSIGN_OR_RETURN(PlannedModel planned, PlanModel(plan.resolved.models.draft, options));
    draft = std::make_unique<PlannedModel>(std::move(planned));
    plan.draft_bytes = draft->weights_bytes;
    plan.workspace_bytes += draft->workspace_bytes;
    plan.draft_workspace_bytes = draft->workspace_bytes;
    RETURN_IF_ERROR(CheckPair(plan.resolved.models.target, plan.resolved.models.draft).status());
  }
  RETURN_IF_ERROR(SizePool(options, target, draft.get(), plan));
  SizeSwapSpace(options, plan);
  if (options.device == "cpu") {
    plan.available_bytes = ReadHostMemory().available_bytes;
  } else {
    RETURN_IF_ERROR(PlanGpu(options, plan));
  }
  RETURN_IF_ERROR(CheckFit(plan));
  return plan;
}

ExitCode ExitCodeOfPlan(const absl::Status& status) {
  if (absl::IsResourceExhausted(status) || absl::IsFailedPrecondition(status)) return kExitMemory;
  return absl::IsOutOfRange(status) ? kExitUsage : kExitModelFile;
}

absl::StatusOr<VocabularyDifference> CheckPair(const std::string& target_path,
                                               const std::string& draft_path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> target, Tokenizer::FromFile(target_path));
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> draft, Tokenizer::FromFile(draft_path));
  return CompareVocabularies(*target, *draft);
}

}  // namespace tandem
