#include "common/device/pinned_memory.h"

#include <cuda_runtime_api.h>

#include "absl/strings/str_format.h"

namespace tandem {

absl::StatusOr<PinnedBuffer> PinnedBuffer::Allocate(int64_t num_bytes, const char* what,
                                                    const char* remedy) {
  void* data = nullptr;
  const cudaError_t error = cudaHostAlloc(&data, static_cast<size_t>(num_bytes),
                                          cudaHostAllocPortable | cudaHostAllocMapped);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return absl::ResourceExhaustedError(absl::StrFormat(
        "locking %.1f MiB of host memory for %s failed (%s): %s",
        static_cast<double>(num_bytes) / (1 << 20), what, cudaGetErrorString(error), remedy));
  }
  PinnedBuffer buffer;
  buffer.data_ = static_cast<uint8_t*>(data);
  return buffer;
}

PinnedBuffer::~PinnedBuffer() { cudaFreeHost(data_); }

}  // namespace tandem
