#include "common/device/cuda_status.h"

#include "absl/strings/str_cat.h"

namespace tandem {

absl::Status CudaStatus(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message =
      absl::StrCat("CUDA failed while ", doing, ": ", cudaGetErrorString(error), " (",
                   cudaGetErrorName(error), ")");
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(message);
  return absl::InternalError(message);
}

}  // namespace tandem
