// A Llama-architecture model on a CUDA device.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "common/device/device_memory.h"
#include "common/gguf/gguf.h"
#include "common/model/cuda_format.h"
#include "common/model/executor.h"

namespace tandem {

struct CudaExecutorOptions {
  ExecutorLimits limits;
  int32_t device = 0;
  DeviceLedger* ledger = nullptr;  // borrowed; must outlive the executor
  KvType k_type = KvType::k4;
  KvType v_type = KvType::k4;
  // Positions of a KV page, a multiple of 8; 0: what fits the pool that is attached.
  int32_t page_positions = 0;
  CudaWeightChoices weights;
  bool with_probabilities = false;  // of the greatest logits, which a draft wants to know
  bool warms_up = false;            // AttachKv makes the graphs of common steps: for servers
  // Bytes of the file uploaded so far, and in all. May be empty.
  std::function<void(int64_t done_bytes, int64_t total_bytes)> progress;
};

// Loads the model of `file` to the device; the file may be closed afterwards. Errors as
// CreateCpuExecutor, and RESOURCE_EXHAUSTED when the device or the ledger's budget has no
// room, FAILED_PRECONDITION for a device that cannot run Tandem's kernels.
absl::StatusOr<std::unique_ptr<Executor>> CreateCudaExecutor(const GgufFile& file,
                                                             const CudaExecutorOptions& options);

}  // namespace tandem
