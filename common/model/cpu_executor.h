// A Llama-architecture model on the CPU.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "common/gguf/gguf.h"
#include "common/model/executor.h"
#include "common/model/weights.h"

namespace tandem {

struct CpuExecutorOptions {
  ExecutorLimits limits;
  int32_t num_threads = 1;
  KvType k_type = KvType::k4;
  KvType v_type = KvType::k4;
  // Positions of a KV page, a multiple of 8; 0: what fits the pool that is attached.
  int32_t page_positions = 0;
  WeightPrecision weight_precision = WeightPrecision::kPacked;
  // Bytes of the file packed so far, and in all. May be empty.
  std::function<void(int64_t done_bytes, int64_t total_bytes)> progress;
};

// The KV geometry of a model.
KvLayout KvLayoutFor(const ModelConfig& config, KvType k_type, KvType v_type,
                     int32_t page_positions);

// Loads the model of `file`, which may be closed afterwards. INVALID_ARGUMENT for a file
// that is not a model Tandem runs or options out of range.
absl::StatusOr<std::unique_ptr<Executor>> CreateCpuExecutor(const GgufFile& file,
                                                            const CpuExecutorOptions& options);

}  // namespace tandem
