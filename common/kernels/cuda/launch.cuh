// One way to launch a kernel, so that the overlap with the previous one is asked for in
// one place.
#pragma once

#include <cuda_runtime.h>

#include "common/kernels/cuda/matmul.h"

namespace tandem::cuda {

template <class... Parameters, class... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   const LaunchOptions& options, Arguments&&... arguments) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = options.stream;
  config.attrs = &attribute;
  config.numAttrs = options.may_overlap ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace tandem::cuda
