// Memory that several processes map, known by a file descriptor and no name.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/ipc/owned_fd.h"

namespace tandem {

// A mapped memfd. Its size is sealed, so that no peer can shorten it under a reader
// (SIGBUS). It lives as long as any process holds the descriptor or a mapping: it
// outlives its maker, and leaves nothing behind in a file system. Movable.
class SharedMemory {
 public:
  SharedMemory() = default;
  // `bytes` zeroed bytes, at least 1. RESOURCE_EXHAUSTED when there is no room; pages
  // are taken when first touched. `name` shows in /proc.
  static absl::StatusOr<SharedMemory> Create(const std::string& name, int64_t bytes);

  // Maps the first `map_bytes` (0: all) of what a peer made. FAILED_PRECONDITION when
  // its size is not sealed, DATA_LOSS when it is shorter.
  static absl::StatusOr<SharedMemory> Map(OwnedFd fd, int64_t map_bytes);

  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&& other) noexcept;
  ~SharedMemory();

  absl::Span<uint8_t> memory() const { return memory_; }
  int64_t file_bytes() const { return file_bytes_; }
  int fd() const { return fd_.get(); }

 private:
  OwnedFd fd_;
  int64_t file_bytes_ = 0;
  absl::Span<uint8_t> memory_;
};

}  // namespace tandem
