// What the weights of a file become on a CUDA device; needs no CUDA, for planning.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/gguf/gguf.h"
#include "common/kernels/cuda/device_matrix.h"
#include "common/model/config.h"
#include "common/tensor/dtype.h"

namespace tandem {

// What a stored type becomes on the device.
cuda::MatrixFormat CudaFormatOf(DType stored, bool quantize_to_nf4);

// How weights are kept on the device.
struct CudaWeightChoices {
  bool quantize_to_nf4 = false;  // F32, F16 and BF16 matrices; else to 8 bits
  // The embedding table, where it is not the head too. Else it lies in pinned host memory: of
  // half a gigabyte a step reads a few rows.
  bool embedding_on_device = false;

  bool IsOnDevice(std::string_view tensor, bool tied_head) const {
    return tensor != "token_embd.weight" || tied_head || embedding_on_device;
  }
};

// Bytes that all weights of the model take there. INVALID_ARGUMENT as PlanWeights.
absl::StatusOr<int64_t> CudaWeightBytes(const GgufFile& file, const ModelConfig& config,
                                        const CudaWeightChoices& choices);

}  // namespace tandem
