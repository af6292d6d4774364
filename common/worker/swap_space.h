// Places in a worker's host memory where pages of the pool wait.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/model/executor.h"
#include "common/worker/page_copier.h"
#include "common/worker/step.h"

namespace tandem::worker {

// What a swap space may take of host memory: `wanted_bytes`, and never more than a quarter of
// `available_bytes`.
int64_t SwapSpaceBytes(int64_t wanted_bytes, int64_t available_bytes);

// Places of one page each, numbered from 0; what is in which is the gateway's to know. Their memory
// is taken in blocks when a place of a block is first named, and kept: a swap space that is not
// used costs nothing. Not thread-safe.
class SwapSpace {
 public:
  // As many places as fit `num_bytes`, for the pages of `pool`, whose memory is borrowed.
  SwapSpace(std::unique_ptr<PageCopier> copier, const KvMemory& pool, int64_t num_bytes);

  int32_t num_pages() const { return num_pages_; }

  // Makes the copies in their order and returns when they are done. No forward pass may be under
  // way. Nothing is copied when the numbers of one are none of ours (INVALID_ARGUMENT) or there is
  // no memory for its place (RESOURCE_EXHAUSTED). After other errors, PageCopier's, some copies
  // may have been made. What a place holds that was never written is not said.
  absl::Status Run(absl::Span<const PageCopy> copies);

  // Memory taken so far.
  int64_t held_bytes() const { return held_bytes_; }

 private:
  absl::Status Check(absl::Span<const PageCopy> copies) const;
  absl::Status TakeMemoryFor(int32_t swap_page);
  absl::Status Start(const PageCopy& copy);

  std::unique_ptr<PageCopier> copier_;
  KvMemory pool_;
  int32_t num_pages_ = 0;
  int32_t block_pages_ = 1;                         // the last block may have fewer
  std::vector<std::shared_ptr<uint8_t[]>> blocks_;  // null until one of their places is used
  int64_t held_bytes_ = 0;
};

}  // namespace tandem::worker
