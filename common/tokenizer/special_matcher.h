// Finds the tokens that are taken from a text before it is split: special and
// user-defined ones.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "common/tokenizer/byte_span.h"

namespace tandem {

// Immutable once filled; thread-safe then.
class SpecialMatcher {
 public:
  struct Match {
    ByteSpan span;
    int32_t id;
  };

  // Of two tokens with one text the first stays. A token that is `in_content` is found
  // everywhere, any other only outside content. Empty texts are ignored.
  void Add(std::string_view text, int32_t id, bool in_content);

  // All matches in `text` from left to right: at each position the longest token that
  // is allowed there, none overlapping. Requires `content` to be sorted, disjoint and
  // inside the text. At most size * longest token steps.
  std::vector<Match> FindAll(std::string_view text, absl::Span<const ByteSpan> content) const;

 private:
  struct Node {
    int32_t id = -1;  // of the token that ends here
    bool in_content = false;
  };
  // The longest allowed token at `begin` that, unless it is in_content, ends at or
  // before `limit`.
  Match LongestAt(std::string_view text, size_t begin, int64_t limit) const;

  std::vector<Node> nodes_{1};                       // a trie; the root is 0
  absl::flat_hash_map<uint64_t, int32_t> children_;  // node << 8 | byte
  std::array<bool, 256> starts_{};                   // by first byte
};

}  // namespace tandem
