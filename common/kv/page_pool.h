// Which pages of the pool are free, and who holds the others.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/ids.h"

namespace tandem {

// Hands out KV pages by number; never touches their bytes, so it is tested
// without a GPU. A page holds K and V of consecutive positions of one sequence, all
// layers, of one role; both roles take pages from the same free list. Sequences with
// a common prefix share its pages.
//
// A page has a generation that changes each time it is handed out anew: a worker that
// was told an older one must not touch the page (see kv/pool_control.h).
//
// All memory is reserved by the constructor; no method allocates except for
// its result. Not thread-safe: the scheduler thread owns it.
class KvPagePool {
 public:
  // Requires num_pages > 0.
  explicit KvPagePool(int32_t num_pages);

  // Takes `num_pages` pages for `role` with one reference each: all of them, or none
  // and RESOURCE_EXHAUSTED (the caller may preempt a sequence and retry).
  absl::StatusOr<std::vector<PageId>> Allocate(Role role, int32_t num_pages);

  // Adds a reference, for a sequence that shares `page`. Requires it be live.
  void AddRef(PageId page);

  // Drops one reference from each page; those that reach zero become free.
  // Requires every page to be live.
  void Release(absl::Span<const PageId> pages);

  // Generation of a live page, at least 1.
  uint32_t generation(PageId page) const;

  int32_t num_pages() const { return static_cast<int32_t>(ref_counts_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  // Live pages of `role`.
  int32_t num_used(Role role) const { return num_used_[static_cast<int>(role)]; }

 private:
  std::vector<int32_t> ref_counts_;    // [num_pages]; 0 means free
  std::vector<uint32_t> generations_;  // [num_pages]; times handed out
  std::vector<Role> roles_;            // [num_pages]; of the last holder
  std::vector<PageId> free_;           // stack; last freed is next used
  int32_t num_used_[kNumRoles] = {};
};

}  // namespace tandem
