#include "common/tokenizer/merge_table.h"

#include <algorithm>
#include <functional>

namespace tandem {
namespace {

uint64_t Pack(int32_t high, int32_t low) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(high)) << 32) | static_cast<uint32_t>(low);
}

}  // namespace

void MergeTable::Add(int32_t left, int32_t right, int32_t rank, int32_t merged) {
  merges_.try_emplace(Pack(left, right), Merge{rank, merged});
}

const MergeTable::Merge* MergeTable::Find(int32_t left, int32_t right) const {
  const auto it = merges_.find(Pack(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

// Brings the rank of the pair that begins at `at` up to date.
void MergeTable::Rank(MergeScratch* scratch, int32_t at) const {
  auto& symbols = scratch->symbols_;
  MergeScratch::Symbol& symbol = symbols[static_cast<size_t>(at)];
  const Merge* merge =
      symbol.next < 0 ? nullptr : Find(symbol.id, symbols[static_cast<size_t>(symbol.next)].id);
  symbol.rank = merge == nullptr ? -1 : merge->rank;
}

void MergeTable::Apply(MergeScratch* scratch) const {
  auto& symbols = scratch->symbols_;
  auto& heap = scratch->heap_;
  const auto size = static_cast<int32_t>(symbols.size());
  heap.clear();
  for (int32_t at = 0; at < size; ++at) {
    symbols[static_cast<size_t>(at)].prev = at - 1;
    symbols[static_cast<size_t>(at)].next = at + 1 < size ? at + 1 : -1;
  }
  const auto enqueue = [&](int32_t at) {
    Rank(scratch, at);
    const int32_t rank = symbols[static_cast<size_t>(at)].rank;
    if (rank >= 0) heap.push_back(Pack(rank, at));
    return rank >= 0;
  };
  for (int32_t at = 0; at < size; ++at) enqueue(at);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t top = heap.back();
    heap.pop_back();
    const auto at = static_cast<int32_t>(top & 0xFFFFFFFFu);
    MergeScratch::Symbol& left = symbols[static_cast<size_t>(at)];
    // An entry is stale when its symbol was joined since: symbols that are gone have
    // no rank. Equal ranks mean an equal place in the order, so no more is compared.
    if (left.rank != static_cast<int32_t>(top >> 32)) continue;

    MergeScratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
    left.id = Find(left.id, right.id)->merged;
    left.next = right.next;
    right.rank = -1;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].prev = at;
    if (enqueue(at)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
    if (left.prev >= 0 && enqueue(left.prev)) {
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  }
}

}  // namespace tandem
