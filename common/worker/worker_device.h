// The device a worker runs on: the CPU, or a CUDA device.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/gguf/gguf.h"
#include "common/ipc/device_pages.h"
#include "common/model/executor.h"
#include "common/worker/page_copier.h"
#include "common/worker/worker_options.h"

namespace tandem::worker {

// Memory of the device, in bytes; zeros where it has none of its own.
struct DeviceMemory {
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;
  // Free, and below the worker's budget: what may still be allocated.
  int64_t usable_bytes = 0;
  // What the driver says we hold and our ledger does not know: the context and the code of
  // kernels. -1 when the driver does not tell.
  int64_t unaccounted_bytes = -1;
};

// True for a device that does not even tell its memory: after an error that stays (an illegal
// address, an Xid) CUDA answers every call with it. False for the CPU, whose `memory` is empty.
inline bool HasFailed(const std::function<DeviceMemory()>& memory) {
  return memory && memory().total_bytes == 0;
}

// Outlives the executors and the pages that are made on it.
class WorkerDevice {
 public:
  virtual ~WorkerDevice() = default;

  virtual bool is_cuda() const = 0;
  virtual std::string name() const = 0;
  // To make and open KV pages; nullptr on the CPU, whose pages are in shared memory.
  virtual PagesDevice* pages() = 0;
  virtual DeviceMemory Memory() const = 0;
  // To copy those pages to the host and back.
  virtual std::unique_ptr<PageCopier> NewPageCopier() const = 0;
  // Loads the model of `file`; errors as CreateCpuExecutor and CreateCudaExecutor.
  virtual absl::StatusOr<std::unique_ptr<Executor>> Load(
      const GgufFile& file, const ExecutorLimits& limits, const WorkerOptions& options,
      const std::function<void(int64_t, int64_t)>& on_progress) = 0;
};

// The device of options.device. FAILED_PRECONDITION when there is no such device, or when
// this build runs on the CPU only.
absl::StatusOr<std::unique_ptr<WorkerDevice>> OpenWorkerDevice(const WorkerOptions& options);

// The same for a CUDA device; in builds that have CUDA.
absl::StatusOr<std::unique_ptr<WorkerDevice>> OpenCudaWorkerDevice(const WorkerOptions& options);

}  // namespace tandem::worker
