#include "common/kernels/cpu/attention_plan.h"

#include <algorithm>
#include <cassert>

namespace tandem::cpu {
namespace {

int32_t DivideUp(int32_t a, int32_t b) { return (a + b - 1) / b; }

}  // namespace

AttentionPlan::AttentionPlan(int32_t max_rows, int32_t max_positions, int32_t max_queries,
                             int32_t num_threads)
    : max_splits_(DivideUp(max_positions, kSplitPositions)),
      max_queries_(max_queries),
      max_split_heads_(kItemsPerThread * num_threads) {
  units_.reserve(max_rows);  // a unit has at least one row
}

void AttentionPlan::Build(const AttentionArgs& args, int32_t queries_per_row, int32_t num_threads) {
  const int32_t rows_per_unit = std::max(1, kMaxQueries / queries_per_row);
  const int32_t num_heads = args.layout.num_kv_heads;
  units_.clear();
  for (int32_t s = 0; s < args.num_sequences; ++s) {
    const AttentionSequence& sequence = args.sequences[s];
    // Later rows reach further: the longest items first, so that none ends the step alone.
    for (int32_t left = sequence.num_rows; left > 0;) {
      const int32_t num_rows = (left - 1) % rows_per_unit + 1;
      left -= num_rows;
      const int32_t num_positions = sequence.start_position + left + num_rows;
      units_.push_back({.sequence = s,
                        .first_row = left,
                        .num_rows = num_rows,
                        .num_splits = DivideUp(num_positions, kSplitPositions)});
    }
  }
  const int32_t unit_heads = static_cast<int32_t>(units_.size()) * num_heads;
  const int32_t wanted_items = num_threads > 1 ? kItemsPerThread * num_threads : 1;
  const int32_t wanted_per_head = DivideUp(wanted_items, std::max(unit_heads, 1));
  num_items_ = 0;
  int32_t num_slots = 0;
  int32_t num_counters = 0;
  for (AttentionUnit& unit : units_) {
    unit.splits_per_item = DivideUp(unit.num_splits, wanted_per_head);
    unit.items_per_head = DivideUp(unit.num_splits, unit.splits_per_item);
    unit.first_item = num_items_;
    num_items_ += num_heads * unit.items_per_head;
    if (unit.items_per_head == 1) continue;
    unit.first_slot = num_slots;
    unit.first_counter = num_counters;
    num_slots += num_heads * unit.num_splits * unit.num_rows * queries_per_row;
    num_counters += num_heads;
  }
  assert(num_slots <= max_slots() && num_counters <= max_counters());
}

AttentionItem AttentionPlan::item(int32_t index) const {
  const auto after =
      std::upper_bound(units_.begin(), units_.end(), index,
                       [](int32_t i, const AttentionUnit& unit) { return i < unit.first_item; });
  const AttentionUnit& unit = *(after - 1);
  const int32_t in_unit = index - unit.first_item;
  const int32_t begin = in_unit % unit.items_per_head * unit.splits_per_item;
  return {.unit = static_cast<int32_t>(after - 1 - units_.begin()),
          .kv_head = in_unit / unit.items_per_head,
          .split_begin = begin,
          .split_end = std::min(begin + unit.splits_per_item, unit.num_splits)};
}

}  // namespace tandem::cpu
