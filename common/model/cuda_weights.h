// The weights of a Llama-architecture model, packed for the CUDA kernels and uploaded.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/device/device_memory.h"
#include "common/device/pinned_memory.h"
#include "common/gguf/gguf.h"
#include "common/kernels/cuda/device_matrix.h"
#include "common/model/config.h"
#include "common/model/cuda_format.h"

namespace tandem {

// Some rows of a product, from column `first_col` of its output on.
struct CudaMatrixPart {
  cuda::DeviceMatrix matrix;
  int32_t first_col = 0;
};

struct CudaLayerWeights {
  const float* attention_norm = nullptr;  // [hidden]
  // Q, K and V rows behind each other: one part when they are of one format.
  std::vector<CudaMatrixPart> qkv;
  cuda::DeviceMatrix attention_output;
  const float* ffn_norm = nullptr;  // [hidden]
  // 32 rows of the gate, the same 32 of up, and so on.
  cuda::DeviceMatrix gate_up;
  cuda::DeviceMatrix down;
};

// All pointers into `memory`, the embedding's into `host_memory` when it is not on the device.
// Immutable.
struct CudaWeights {
  DeviceBuffer memory;
  PinnedBuffer host_memory;
  cuda::DeviceMatrix embedding;
  cuda::DeviceMatrix head;  // the embedding's memory when tied
  const float* output_norm = nullptr;
  const float* rope_inv_freq = nullptr;  // [rope_dim / 2]
  std::vector<CudaLayerWeights> layers;
};

struct CudaWeightsOptions {
  CudaWeightChoices choices;
  int32_t num_threads = 1;  // that pack
  DeviceLedger* ledger = nullptr;
  std::function<void(int64_t done_bytes, int64_t total_bytes)> progress;  // may be empty
};

// Errors as LoadWeights, and INVALID_ARGUMENT for a shape the kernels do not take.
absl::StatusOr<CudaWeights> LoadCudaWeights(const GgufFile& file, const ModelConfig& config,
                                            const CudaWeightsOptions& options);

}  // namespace tandem
