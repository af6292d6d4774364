#include "common/worker/worker_device.h"

#include "common/model/cpu_executor.h"
#include "common/worker/worker_process.h"

namespace tandem::worker {
namespace {

class CpuDevice : public WorkerDevice {
 public:
  bool is_cuda() const override { return false; }
  std::string name() const override { return CpuName(); }
  PagesDevice* pages() override { return nullptr; }
  DeviceMemory Memory() const override { return {}; }
  std::unique_ptr<PageCopier> NewPageCopier() const override { return NewHostPageCopier(); }
  absl::StatusOr<std::unique_ptr<Executor>> Load(
      const GgufFile& file, const ExecutorLimits& limits, const WorkerOptions& options,
      const std::function<void(int64_t, int64_t)>& on_progress) override {
    return CreateCpuExecutor(
        file, {.limits = limits,
               .num_threads = options.threads,
               .k_type = options.k_type,
               .v_type = options.v_type,
               .page_positions = options.role == Role::kTarget ? options.page_positions : 0,
               .progress = on_progress});
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerDevice>> OpenWorkerDevice(const WorkerOptions& options) {
  if (options.cuda_device < 0) return std::make_unique<CpuDevice>();
#ifdef TANDEM_HAS_CUDA
  return OpenCudaWorkerDevice(options);
#else
  return absl::FailedPreconditionError(
      "--device cuda: this build runs on the CPU only; build with a CUDA toolkit installed, or "
      "use --device cpu");
#endif
}

}  // namespace tandem::worker
