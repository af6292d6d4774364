// Who gets pages and draft_probs slots of the shared pool.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/base/ids.h"
#include "common/kv/page_pool.h"
#include "services/gateway/engine/sequence.h"
#include "services/gateway/engine/worker_link.h"

namespace tandem::gateway {

// The engine's view of one pool: hands out pages on demand and publishes the generation of
// each before anybody can be told of it. Not thread-safe.
class PagePlanner {
 public:
  // `fence` is borrowed.
  explicit PagePlanner(PageFence* fence) : fence_(fence) {}

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
  // while `keep_free` stay free: all it needs or nothing, then false.
  bool Grow(Role role, int32_t num_positions, int32_t keep_free, Sequence* sequence);
  // Takes all pages of `role` from it and forgets its KV.
  void Drop(Role role, Sequence* sequence);

  // Where the draft leaves its distributions for the sequence; false when all are taken.
  bool TakeSlot(Sequence* sequence);
  void ReturnSlot(Sequence* sequence);

  // The sequence's page table from what the worker knows on; it is then known.
  void FillPages(Role role, Sequence* sequence, SequenceStep* step) const;

  int32_t num_pages() const { return pool_ ? pool_->num_pages() : 0; }
  int32_t num_free() const { return pool_ ? pool_->num_free() : 0; }
  int32_t num_used(Role role) const { return pool_ ? pool_->num_used(role) : 0; }
  int32_t num_free_slots() const { return static_cast<int32_t>(free_slots_.size()); }

 private:
  PageFence* fence_;
  PoolFacts facts_;
  std::optional<KvPagePool> pool_;
  std::vector<int32_t> free_slots_;
  int32_t positions_per_page_[kNumRoles] = {};
};

}  // namespace tandem::gateway
