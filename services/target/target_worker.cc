#include "services/target/target_worker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/telemetry/log.h"
#include "common/worker/worker_process.h"

namespace tandem::target {
namespace {

constexpr int32_t kDefaultSequences = 4;  // that the pool holds at full length
constexpr int32_t kMaxPages = 1 << 24;

absl::StatusOr<PoolGeometry> PlanPool(const worker::WorkerOptions& options,
                                      const Executor& executor, const worker::WorkerDevice* device,
                                      int64_t epoch) {
  const KvLayout& layout = executor.kv_layout();
  PoolGeometry geometry = {.epoch = epoch,
                           .num_pages = options.num_kv_pages,
                           .page_bytes = (layout.page_bytes() + 63) / 64 * 64,
                           .num_draft_probs_slots = options.num_draft_probs_slots};
  const bool on_device = device != nullptr && device->is_cuda();
  if (on_device) geometry.page_memory = PageMemory::kDevice;
  const int64_t pages_of_sequence =
      (executor.limits().max_positions + layout.page_positions - 1) / layout.page_positions;
  if (geometry.num_pages == 0) {
    const int64_t pages = options.kv_bytes > 0 ? options.kv_bytes / geometry.page_bytes
                                               : pages_of_sequence * kDefaultSequences;
    geometry.num_pages = static_cast<int32_t>(std::min<int64_t>(pages, kMaxPages));
  }
  if (geometry.num_pages < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--kv-bytes ", options.kv_bytes, " holds no page of ", geometry.page_bytes));
  }
  // Checks the geometry too.
  ASSIGN_OR_RETURN(const int64_t shared_bytes, PoolControlView::TotalBytes(geometry));
  const int64_t bytes = on_device ? geometry.pages_bytes() : shared_bytes;
  const int64_t available =
      on_device ? device->Memory().usable_bytes : worker::AvailableMemoryBytes();
  if (bytes > available) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the KV pool needs ", bytes >> 20, " MiB, ", available >> 20,
        " MiB are available: use fewer --kv-pages, a shorter --ctx or a smaller --kv type"));
  }
  return geometry;
}

// Null when options.swap_bytes is 0, or has room for no page.
std::unique_ptr<worker::SwapSpace> NewSwapSpace(const worker::WorkerOptions& options,
                                                const worker::WorkerDevice* device,
                                                const KvMemory& pages) {
  const int64_t available = worker::AvailableMemoryBytes();
  const int64_t bytes = worker::SwapSpaceBytes(options.swap_bytes, available);
  if (bytes < options.swap_bytes) {
    LogWarning(absl::StrCat("--swap-space ", options.swap_bytes >> 20, " MiB is cut to ",
                            bytes >> 20, " MiB, a quarter of the ", available >> 20,
                            " MiB of host memory that are available"));
  }
  auto space = std::make_unique<worker::SwapSpace>(
      device != nullptr ? device->NewPageCopier() : worker::NewHostPageCopier(), pages, bytes);
  if (space->num_pages() > 0) return space;
  if (options.swap_bytes > 0) {
    LogWarning(absl::StrCat("--swap-space has room for no page of ", pages.page_bytes,
                            " bytes: preempted sequences are computed again"));
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TargetWorker>> TargetWorker::Create(
    const worker::WorkerOptions& options, worker::LoadedModel model) {
  std::unique_ptr<TargetWorker> worker(new TargetWorker());
  worker->device_ = std::move(model.device);
  worker->executor_ = std::move(model.executor);
  Executor& executor = *worker->executor_;
  const int64_t incarnation = worker::NewIncarnation();
  ASSIGN_OR_RETURN(const PoolGeometry geometry,
                   PlanPool(options, executor, worker->device_.get(), incarnation));
  const bool on_device = geometry.page_memory == PageMemory::kDevice;
  ASSIGN_OR_RETURN(worker->pool_,
                   SharedPool::Create(geometry, on_device ? worker->device_->pages() : nullptr,
                                      options.pool_transport ? &*options.pool_transport : nullptr));
  if (on_device) {
    LogInfo(absl::StrCat("KV pages on ", worker->device_->name(), ", shared with the draft by ",
                         PagesTransportName(worker->pool_.transport())));
  }
  const KvMemory pages = {.base = worker->pool_.pages(),
                          .page_bytes = geometry.page_bytes,
                          .num_pages = geometry.num_pages};
  RETURN_IF_ERROR(executor.AttachKv(pages));
  worker->swap_space_ = NewSwapSpace(options, worker->device_.get(), pages);
  ASSIGN_OR_RETURN(TargetEngine engine,
                   TargetEngine::Create(&executor, worker->pool_.control(), options.max_sequences,
                                        worker->swap_space_.get()));
  worker->engine_.emplace(std::move(engine));
  ASSIGN_OR_RETURN(worker->pool_server_, PoolServer::Start(options.pool_socket_path(),
                                                           &worker->pool_, options.allowed_uid));
  const ModelConfig& config = executor.config();
  worker->info_ = {
      .model_name = config.name,
      .quantization = model.quantization,
      .num_parameters = config.num_parameters,
      .vocab_size = config.vocab_size,
      .context_length = executor.limits().max_positions,
      .device_name = worker->device_ != nullptr ? worker->device_->name() : worker::CpuName(),
      .kv_type = worker::KvTypeName(executor.kv_layout().k_type, executor.kv_layout().v_type),
      .model_path = options.model,
      .weight_bytes = executor.weight_bytes(),
      .workspace_bytes = executor.workspace_bytes(),
      .pool_socket_path = options.pool_socket_path(),
      .pool_epoch = geometry.epoch,
      .num_pages = geometry.num_pages,
      .page_bytes = geometry.page_bytes,
      .positions_per_page = executor.kv_layout().page_positions,
      .max_step_tokens = executor.limits().max_step_tokens,
      .max_logits_rows = executor.limits().max_logits_rows,
      .max_sequences = options.max_sequences,
      .incarnation = incarnation,
      .ring_name = options.use_ring ? options.ring_socket_path() : "",
      .model_fingerprint = model.fingerprint,
      .restart_reason = options.restart_reason,
      .map = model.map,
      .upload = model.upload,
      .warmup = worker::ProcessAge() - model.map - model.upload,
  };
  if (worker->swap_space_ != nullptr) {
    worker->info_.num_swap_pages = worker->swap_space_->num_pages();
  }
  if (on_device) {
    worker->info_.is_cuda = true;
    worker->info_.memory = [device = worker->device_.get()] { return device->Memory(); };
  }
  return worker;
}

}  // namespace tandem::target
