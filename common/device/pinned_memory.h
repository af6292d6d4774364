// Host memory that the device reads where it lies.
#pragma once

#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"

namespace tandem {

// Page-locked memory, at the same address for kernels. Movable.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  // RESOURCE_EXHAUSTED when the host has too little memory that may be locked: the message says
  // that it is for `what`, and ends with `remedy`.
  static absl::StatusOr<PinnedBuffer> Allocate(int64_t num_bytes, const char* what,
                                               const char* remedy);
  PinnedBuffer(PinnedBuffer&& other) noexcept { *this = std::move(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~PinnedBuffer();

  uint8_t* data() const { return data_; }

 private:
  uint8_t* data_ = nullptr;
};

}  // namespace tandem
