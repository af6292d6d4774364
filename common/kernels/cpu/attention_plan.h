// How the attention of one step is cut into items of work.
//
// A unit is some rows of one sequence with, for each KV head, all query heads that
// share it. Its queries (row and head), at most kMaxQueries unless a single row has
// more, share every K and V tile. The context of a unit is cut into splits of kSplitPositions, from
// position 0 on. An item is a unit, a KV head and a range of splits. Only the cut of rows into
// units and of splits into items depends on the step; no result depends on either.
#pragma once

#include <cstdint>
#include <vector>

#include "common/kernels/cpu/attention.h"

namespace tandem::cpu {

inline constexpr int32_t kTilePositions = 64;
inline constexpr int32_t kSplitPositions = 256;
inline constexpr int32_t kMaxQueries = 32;

struct AttentionUnit {
  int32_t sequence = 0;
  int32_t first_row = 0;  // in the sequence
  int32_t num_rows = 0;
  int32_t num_splits = 0;  // that its last row reaches
  int32_t splits_per_item = 0;
  int32_t items_per_head = 0;  // above 1, the partial results go through slots
  int32_t first_item = 0;
  int32_t first_slot = 0;     // slots are [kv_head, split, query]
  int32_t first_counter = 0;  // one for each KV head
};

struct AttentionItem {
  int32_t unit = 0;
  int32_t kv_head = 0;
  int32_t split_begin = 0;
  int32_t split_end = 0;
};

// Reused from step to step; allocates only in the constructor.
class AttentionPlan {
 public:
  // Bounds of any step: rows, context, queries of a unit, and threads.
  AttentionPlan(int32_t max_rows, int32_t max_positions, int32_t max_queries, int32_t num_threads);

  // Cuts a step. `queries_per_row` is the number of query heads of a KV head.
  void Build(const AttentionArgs& args, int32_t queries_per_row, int32_t num_threads);

  AttentionItem item(int32_t index) const;
  const AttentionUnit& unit(int32_t index) const { return units_[index]; }
  const std::vector<AttentionUnit>& units() const { return units_; }
  int32_t num_items() const { return num_items_; }

  // Upper bounds over all steps, for the workspace. Only units cut into several items
  // use slots and counters.
  int64_t max_slots() const { return int64_t{max_split_heads_} * max_splits_ * max_queries_; }
  int32_t max_counters() const { return max_split_heads_; }

 private:
  // Items that a thread should find, so that the threads end at about one time.
  static constexpr int32_t kItemsPerThread = 4;

  int32_t max_splits_;
  int32_t max_queries_;
  int32_t max_split_heads_;  // of units cut into several items, times KV heads
  int32_t num_items_ = 0;
  std::vector<AttentionUnit> units_;
};

}  // namespace tandem::cpu
