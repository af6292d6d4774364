// The control block of the shared page pool: what draft, target and gateway all see.
//
// The pool is one piece of shared memory. The control block is at its start, the pages
// follow at `pages_offset`, unless they are in the memory of a device:
//
//   0                  PoolControlHeader
//   generations_offset generations[num_pages], atomic uint32: of the present holder
//   slots_offset       DraftProbsSlot[num_draft_probs_slots]
//   pages_offset       page 0, page 1, ...  (page_bytes each)
//
// The target makes and initializes it; the gateway, which owns the free list, sets
// generations; the workers compare them before they touch a page. A new pool has a new
// epoch. Sizes are checked when a view is made and kept outside the shared memory: a
// peer that scribbles over the header later moves nothing.
#pragma once

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/base/limits.h"

namespace tandem {

inline constexpr int32_t kMaxDraftProbsEntries = 256;  // of one draft token

// One entry of a proposal distribution.
struct DraftProb {
  int32_t token_id = 0;
  float prob = 0.0f;
};

// The distribution one draft token was drawn from: the draft's likeliest entries,
// renormalized to sum to 1 (REJECTION only).
struct DraftProbsRow {
  int32_t drawn_token_id;
  int32_t num_entries;
  DraftProb entries[kMaxDraftProbsEntries];
};

// The distributions of one sequence's drafts of one step. Written by the draft before
// its answer, read by the target after: the messages order the two.
struct DraftProbsSlot {
  int64_t sequence_id;
  int32_t first_position;  // of draft token 0
  int32_t num_rows;
  DraftProbsRow rows[kMaxDraftLength];
};

// Where the pages are.
enum class PageMemory : int32_t { kHost = 0, kDevice = 1 };

// How a process opens pages in the memory of a device; `transport` and the bytes mean
// something to common/ipc only.
struct DevicePagesHandle {
  int32_t transport;
  int32_t reserved;
  int64_t num_bytes;  // of the pages and the probe area behind them
  uint64_t probe;     // what the probe area was filled with
  uint8_t device_uuid[16];
  uint8_t ipc_handle[64];
};

struct PoolControlHeader {
  uint64_t magic;
  uint32_t layout_version;
  int32_t num_pages;
  uint64_t fingerprint;
  int64_t epoch;
  int64_t page_bytes;
  int64_t generations_offset;
  int64_t slots_offset;
  int64_t pages_offset;
  int64_t total_bytes;
  int32_t num_draft_probs_slots;
  int32_t page_memory;
  DevicePagesHandle device_pages;  // kDevice; written before the pool is handed out
};

// What a pool is made with.
struct PoolGeometry {
  int64_t epoch = 0;  // at least 1
  int32_t num_pages = 0;
  int64_t page_bytes = 0;  // a multiple of 64
  int32_t num_draft_probs_slots = 0;
  PageMemory page_memory = PageMemory::kHost;

  int64_t pages_bytes() const { return page_bytes * num_pages; }
};

// Changes with every change of the structures above; two processes share a pool only
// when theirs are equal.
uint64_t PoolFingerprint();

// A checked look at a control block in mapped memory, which must outlive it. Copies see
// the same block. Thread-safe as far as generations go; a slot has one writer and one
// reader that take turns.
class PoolControlView {
 public:
  PoolControlView() = default;

  // Bytes before page 0, and of the whole shared memory (without pages on a device);
  // INVALID_ARGUMENT with the numbers for a geometry that cannot be.
  static absl::StatusOr<int64_t> ControlBytes(const PoolGeometry& geometry);
  static absl::StatusOr<int64_t> TotalBytes(const PoolGeometry& geometry);

  // Writes a new block into zeroed memory of at least ControlBytes.
  static absl::StatusOr<PoolControlView> Create(absl::Span<uint8_t> memory,
                                                const PoolGeometry& geometry);

  // Checks the block at the start of `memory`, which may end before the pages do;
  // `file_bytes` is the size of what is mapped. FAILED_PRECONDITION for a block of
  // another build, DATA_LOSS for one that contradicts itself or its size.
  static absl::StatusOr<PoolControlView> Open(absl::Span<uint8_t> memory, int64_t file_bytes);

  const PoolGeometry& geometry() const { return geometry_; }
  int64_t pages_offset() const { return pages_offset_; }

  // Of the page's present holder; 0 when it was never handed out. Requires the page be
  // in the pool.
  uint32_t generation(PageId page) const;
  void SetGeneration(PageId page, uint32_t generation);

  // Requires slot in [0, num_draft_probs_slots). What a reader finds there was written
  // by a peer: it checks every number.
  DraftProbsSlot* draft_probs_slot(int32_t slot) const;

  // kDevice: how to open the pages. What a reader gets was written by a peer.
  DevicePagesHandle device_pages() const { return header_->device_pages; }
  void SetDevicePages(const DevicePagesHandle& handle) { header_->device_pages = handle; }

 private:
  PoolGeometry geometry_;
  PoolControlHeader* header_ = nullptr;
  int64_t pages_offset_ = 0;
  std::atomic<uint32_t>* generations_ = nullptr;  // [num_pages]
  DraftProbsSlot* slots_ = nullptr;               // [num_draft_probs_slots]
};

}  // namespace tandem
