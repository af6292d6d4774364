// Copies between the pages of a pool and host memory, wherever the pages are.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tandem::worker {

// Not thread-safe. Ordered with nothing else that runs on a device: whoever copies has no forward
// pass under way.
class PageCopier {
 public:
  virtual ~PageCopier() = default;

  // Host memory that Start takes, had at once and not when first written: pinned for a device.
  // RESOURCE_EXHAUSTED when there is too little.
  virtual absl::StatusOr<std::shared_ptr<uint8_t[]>> Allocate(int64_t num_bytes) = 0;

  // Begins a copy, which follows those begun before. INTERNAL when the device fails.
  virtual absl::Status Start(uint8_t* to, const uint8_t* from, int64_t num_bytes) = 0;

  // Returns when all copies are done. INTERNAL when one of them failed, DEADLINE_EXCEEDED when the
  // device does not get to them.
  virtual absl::Status Finish() = 0;
};

// For pages in host memory.
std::unique_ptr<PageCopier> NewHostPageCopier();

// For pages in the memory of a CUDA device; in builds that have CUDA.
std::unique_ptr<PageCopier> NewCudaPageCopier(int32_t device);

}  // namespace tandem::worker
