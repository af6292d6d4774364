// Who gets pages and draft_probs slots of the shared pool.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "common/base/ids.h"
#include "common/kv/page_pool.h"
#include "common/kv/prefix_index.h"
#include "services/gateway/engine/sequence.h"
#include "services/gateway/engine/worker_link.h"

namespace tandem::gateway {

// The engine's view of one pool: hands out pages on demand and publishes the generation of
// each before anybody can be told of it. Full pages are kept after their sequence and found
// again by those that begin with the same tokens (the prefix cache), until their room is
// needed. Not thread-safe.
class PagePlanner {
 public:
  // `fence` is borrowed. Without `has_cache` no page is kept.
  PagePlanner(PageFence* fence, bool has_cache) : fence_(fence), has_cache_(has_cache) {}

  // A new pool, all of it free. Requires that no sequence holds pages or slots.
  void Reset(const PoolFacts& facts);
  bool has_pool() const { return pool_.has_value(); }
  int64_t epoch() const { return facts_.epoch; }

  // Where pages end, in positions; 0 while the worker is unknown.
  void SetPositionsPerPage(Role role, int32_t positions) {
    positions_per_page_[static_cast<int>(role)] = positions;
  }
  int32_t PagesFor(Role role, int32_t num_positions) const;
  // Positions that all pages together would hold.
  int64_t Capacity(Role role) const;

  // Gives `sequence` pages for `num_positions` positions of `role`, if there are enough
  // while `keep_free` stay available: all it needs or nothing, then false. Evicts idle pages,
  // the least recently used first, where too few are free.
  bool Grow(Role role, int32_t num_positions, int32_t keep_free, Sequence* sequence);
  // Takes all pages of `role` from it; nothing is known of it there any more.
  void Drop(Role role, Sequence* sequence);

  // The prefix cache. Attach gives a sequence without pages of `role` the longest cached
  // prefix of its tokens that leaves one to run, while `keep_free` pages stay available (those
  // that others hold take nothing); the tokens of it. Share puts its full pages
  // into the cache; one that is there already is replaced by the cached one, whose KV is
  // the same to the bit, so that a sequence holds all pages before any it shares.
  int32_t Attach(Role role, int32_t keep_free, Sequence* sequence);
  void Share(Role role, Sequence* sequence);
  // Pages of the sequence's cached prefix that others hold too: it would need so many less.
  int32_t NumPagesHeldByOthers(Role role, const Sequence& sequence) const;
  // Evicts what is cached of `role`; its worker may have lost the KV. Requires that no
  // sequence holds pages of it.
  void ForgetCached(Role role);
  int64_t num_evicted() const { return num_evicted_; }  // for want of free pages, ever

  // INTERNAL unless each page has as many references as are named here, and what is cached
  // adds up with the index.
  absl::Status CheckReferences(const std::map<PageId, int32_t>& references) const;

  // Where the draft leaves its distributions for the sequence; false when all are taken.
  bool TakeSlot(Sequence* sequence);
  void ReturnSlot(Sequence* sequence);

  // The sequence's page table from what the worker knows on; it is then known.
  void FillPages(Role role, Sequence* sequence, SequenceStep* step) const;

  int32_t num_pages() const { return pool_ ? pool_->num_pages() : 0; }
  int32_t num_free() const { return pool_ ? pool_->num_free() : 0; }
  int32_t num_idle() const { return pool_ ? pool_->num_idle() : 0; }
  int32_t num_pinned() const { return pool_ ? pool_->num_pinned() : 0; }
  // Free, or free as soon as it is needed.
  int32_t num_available() const { return num_free() + num_idle(); }
  int32_t num_used(Role role) const { return pool_ ? pool_->num_used(role) : 0; }
  int32_t num_slots() const { return facts_.num_draft_probs_slots; }
  int32_t num_free_slots() const { return static_cast<int32_t>(free_slots_.size()); }

 private:
  PrefixIndex& index(Role role) { return indexes_[static_cast<int>(role)]; }
  const PrefixIndex& index(Role role) const { return indexes_[static_cast<int>(role)]; }
  absl::Span<const int32_t> TokensOfPage(Role role, const Sequence& sequence, int32_t page) const;
  void Evict(Role role, PageId page);

  PageFence* fence_;
  const bool has_cache_;
  PoolFacts facts_;
  std::optional<KvPagePool> pool_;
  std::vector<int32_t> free_slots_;
  int32_t positions_per_page_[kNumRoles] = {};
  PrefixIndex indexes_[kNumRoles];
  int64_t num_evicted_ = 0;
};

}  // namespace tandem::gateway
