// CUDA errors as absl::Status.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"

namespace tandem {

// `doing` completes "CUDA failed while ...". RESOURCE_EXHAUSTED for missing memory,
// INTERNAL for everything else; the message has CUDA's own words.
absl::Status CudaStatus(cudaError_t error, const char* doing);

}  // namespace tandem
