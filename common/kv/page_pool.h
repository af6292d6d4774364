// Which pages of the pool are free, who holds the others, and which are kept for reuse.
#pragma once

#include <cstdint>
#include <optional>
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
// A page is in one of four states:
//   free     nobody's; handed out by Allocate
//   used     has references; not kept
//   pinned   has references, and is kept when the last one goes
//   idle     kept, without references: found again by AddRef, or evicted
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
  // and RESOURCE_EXHAUSTED (the caller may evict, or preempt a sequence, and retry).
  absl::StatusOr<std::vector<PageId>> Allocate(Role role, int32_t num_pages);

  // Adds a reference, for a sequence that shares `page`. Requires it not be free.
  void AddRef(PageId page);

  // Drops one reference from each page, the last page first: those that reach zero become
  // free, or idle when they are kept. Requires every page to have references.
  void Release(absl::Span<const PageId> pages);

  // Keeps `page` when its last reference goes. Requires it be used.
  void Keep(PageId page);
  // The idle page whose last reference went first. Pages of a sequence become idle from its
  // end on, so a prefix is never evicted before what follows it.
  std::optional<PageId> OldestIdle() const;
  // All idle pages of `role`, in that order.
  std::vector<PageId> IdlePages(Role role) const;
  // Makes an idle page free.
  void Evict(PageId page);

  // Generation of a page that is not free, at least 1.
  uint32_t generation(PageId page) const;

  int32_t num_pages() const { return static_cast<int32_t>(pages_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  // Pages of `role` with references, and those without.
  int32_t num_used(Role role) const { return num_used_[static_cast<int>(role)]; }
  int32_t num_idle(Role role) const { return num_idle_[static_cast<int>(role)]; }
  int32_t num_idle() const { return num_idle(Role::kTarget) + num_idle(Role::kDraft); }
  int32_t num_pinned() const { return num_pinned_; }
  Role role(PageId page) const { return At(page).role; }  // of its last holder
  bool has_references(PageId page) const { return At(page).num_references > 0; }
  int32_t num_references(PageId page) const { return At(page).num_references; }

 private:
  static constexpr int32_t kNone = -1;

  struct Page {
    int32_t num_references = 0;
    uint32_t generation = 0;  // times handed out
    Role role = Role::kTarget;
    bool is_kept = false;
    int32_t older = kNone;  // of the idle ones
    int32_t newer = kNone;
  };

  Page& At(PageId page);
  const Page& At(PageId page) const;
  void AppendIdle(int32_t index);
  void UnlinkIdle(int32_t index);

  std::vector<Page> pages_;
  std::vector<PageId> free_;  // stack; last freed is next used
  int32_t oldest_idle_ = kNone;
  int32_t newest_idle_ = kNone;
  int32_t num_used_[kNumRoles] = {};
  int32_t num_idle_[kNumRoles] = {};
  int32_t num_pinned_ = 0;
};

}  // namespace tandem
