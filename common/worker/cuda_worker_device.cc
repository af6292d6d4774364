#include <cuda_runtime_api.h>

#include <algorithm>

#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"
#include "common/device/device_memory.h"
#include "common/device/nvml.h"
#include "common/ipc/cuda_pages.h"
#include "common/model/cuda_executor.h"
#include "common/worker/worker_device.h"

namespace tandem::worker {
namespace {

class CudaDevice : public WorkerDevice {
 public:
  CudaDevice(int32_t device, int64_t budget_bytes) : device_(device), ledger_(budget_bytes) {}

  absl::Status Init() {
    ASSIGN_OR_RETURN(pages_, OpenCudaPagesDevice(device_, &ledger_));
    char bus_id[32] = {};
    RETURN_IF_ERROR(CudaStatus(cudaDeviceGetPCIBusId(bus_id, sizeof(bus_id), device_),
                               "asking where the device is"));
    bus_id_ = bus_id;
    if (absl::StatusOr<std::unique_ptr<Nvml>> nvml = Nvml::Open(); nvml.ok()) {
      nvml_ = *std::move(nvml);
    }
    return absl::OkStatus();
  }

  bool is_cuda() const override { return true; }
  std::string name() const override { return pages_->name(); }
  PagesDevice* pages() override { return pages_.get(); }

  DeviceMemory Memory() const override {
    DeviceMemory memory;
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    if (cudaSetDevice(device_) == cudaSuccess &&
        cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess) {
      memory.total_bytes = static_cast<int64_t>(total_bytes);
      memory.free_bytes = static_cast<int64_t>(free_bytes);
    }
    memory.usable_bytes = memory.free_bytes;
    if (ledger_.budget_bytes() > 0) {
      memory.usable_bytes =
          std::min(memory.usable_bytes, ledger_.budget_bytes() - ledger_.total_bytes());
    }
    if (nvml_ != nullptr) {
      const absl::StatusOr<int64_t> own = nvml_->OwnBytes(bus_id_);
      if (own.ok()) memory.unaccounted_bytes = *own - ledger_.total_bytes();
    }
    return memory;
  }

  std::unique_ptr<PageCopier> NewPageCopier() const override { return NewCudaPageCopier(device_); }

  absl::StatusOr<std::unique_ptr<Executor>> Load(
      const GgufFile& file, const ExecutorLimits& limits, const WorkerOptions& options,
      const std::function<void(int64_t, int64_t)>& on_progress) override {
    return CreateCudaExecutor(
        file, {.limits = limits,
               .device = device_,
               .ledger = &ledger_,
               .k_type = options.k_type,
               .v_type = options.v_type,
               .page_positions = options.role == Role::kTarget ? options.page_positions : 0,
               .weights = {.quantize_to_nf4 = options.quantize_to_nf4,
                           .embedding_on_device = options.embedding_on_device},
               .with_probabilities = options.role == Role::kDraft,
               .warms_up = true,
               .progress = on_progress});
  }

 private:
  const int32_t device_;
  DeviceLedger ledger_;
  std::unique_ptr<PagesDevice> pages_;
  std::string bus_id_;
  std::unique_ptr<Nvml> nvml_;  // null where the driver has none
};

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerDevice>> OpenCudaWorkerDevice(const WorkerOptions& options) {
  auto device = std::make_unique<CudaDevice>(options.cuda_device, options.vram_budget_bytes);
  RETURN_IF_ERROR(device->Init());
  return device;
}

}  // namespace tandem::worker
