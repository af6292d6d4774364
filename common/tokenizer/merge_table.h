// Byte-pair merging: which neighbours are joined, and in what order.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace tandem {

// Symbols of one piece of text on their way to tokens, and the memory that merging
// needs. Kept between pieces so that it is allocated once for a text.
class MergeScratch {
 public:
  void Clear() { symbols_.clear(); }
  void Push(int32_t id) { symbols_.push_back({.id = id}); }

  // Calls `visit(id)` for each symbol that is left, in order.
  template <typename Visit>
  void ForEach(Visit visit) const {
    if (symbols_.empty()) return;
    for (int32_t at = 0; at >= 0; at = symbols_[static_cast<size_t>(at)].next) {
      visit(symbols_[static_cast<size_t>(at)].id);
    }
  }

 private:
  friend class MergeTable;

  // A doubly linked list inside a vector; the first symbol always stays at 0.
  struct Symbol {
    int32_t id;
    int32_t rank = -1;  // of joining it with the next one; -1 if that cannot be
    int32_t prev = -1;
    int32_t next = -1;
  };
  std::vector<Symbol> symbols_;
  std::vector<uint64_t> heap_;  // rank in the high half, position in the low one
};

// The merges of a vocabulary. Ids may be anything, negative ones too.
class MergeTable {
 public:
  void Reserve(int64_t num_merges) { merges_.reserve(static_cast<size_t>(num_merges)); }

  // Joins `left` and `right` into `merged`; lower ranks first. Requires rank >= 0. Of
  // two merges of one pair the first stays.
  void Add(int32_t left, int32_t right, int32_t rank, int32_t merged);

  // Joins neighbours, always a pair of the lowest rank and of these the leftmost,
  // until none can be joined. O(n log n). Requires less than 2^31 symbols.
  void Apply(MergeScratch* scratch) const;

  int64_t num_merges() const { return static_cast<int64_t>(merges_.size()); }

 private:
  struct Merge {
    int32_t rank;
    int32_t merged;
  };
  const Merge* Find(int32_t left, int32_t right) const;
  void Rank(MergeScratch* scratch, int32_t at) const;

  absl::flat_hash_map<uint64_t, Merge> merges_;
};

}  // namespace tandem
