// What the weights of a file become on a CUDA device; needs no CUDA, for planning.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/gguf/gguf.h"
#include "common/kernels/cuda/device_matrix.h"
#include "common/model/config.h"
#include "common/tensor/dtype.h"

namespace tandem {

// What a stored type becomes on the device.
cuda::MatrixFormat CudaFormatOf(DType stored, bool quantize_to_nf4);

// Bytes that all weights of the model take there. INVALID_ARGUMENT as PlanWeights.
absl::StatusOr<int64_t> CudaWeightBytes(const GgufFile& file, const ModelConfig& config,
                                        bool quantize_to_nf4);

}  // namespace tandem
