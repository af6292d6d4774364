// Drafts from the sequence itself: what followed the last time these tokens came.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tandem {

// How far what followed a match is to be trusted. Where all occurrences agree, two say more than
// the length of one; where they do not, the length says little.
enum class MatchTrust : int8_t {
  kContested,  // other tokens followed other occurrences
  kShort,      // a single one, of fewer than 4 tokens
  kMedium,     // of fewer than 8
  kLong,       // or several, of fewer than 8
  kSure,       // several of more, or one of kMaxMatch
};
inline constexpr int32_t kNumMatchTrusts = 5;

// Prompt lookup over the tokens of one sequence. Only committed tokens are appended, so
// nothing is ever rewound. About 28 bytes and constant time for each token, most of it in Link,
// which may come whenever nobody waits. Not thread-safe.
//
// Which occurrence: of the kMaxCandidates most recent earlier occurrences of the last
// kLongMatch tokens the one with the longest match (compared up to kMaxMatch); when there
// is none, the same for the last kShortMatch tokens. The most recent of equals.
class PromptLookup {
 public:
  static constexpr int32_t kShortMatch = 2;
  static constexpr int32_t kLongMatch = 4;
  static constexpr int32_t kMaxMatch = 16;
  static constexpr int32_t kMaxCandidates = 32;

  PromptLookup();

  void Append(absl::Span<const int32_t> token_ids);
  // Makes what was appended quick to find. Find finds it before, and links it itself where it is
  // more than kMaxUnlinked tokens.
  void Link();
  static constexpr int32_t kMaxUnlinked = 64;
  int32_t length() const { return static_cast<int32_t>(tokens_.size()); }

  struct Match {
    int32_t length = 0;         // tokens that match; 0: nothing found
    int32_t next_position = 0;  // what followed there
    MatchTrust trust = MatchTrust::kShort;
  };
  Match Find();

  // The up to `max_tokens` tokens that followed the match; where they reach the end of the
  // sequence they go on with themselves, so that a loop is followed. Requires a match.
  std::vector<int32_t> Draft(const Match& match, int32_t max_tokens) const;

 private:
  // Positions after each n-gram of one length in the linked tokens, from the most recent back.
  struct Chains {
    int32_t n;
    std::vector<int32_t> heads;     // [power of two], by hash; -1: none
    std::vector<int32_t> previous;  // by position; -1: none
  };

  uint32_t HashAt(int32_t end, int32_t n) const;
  void LinkIn(Chains* chains) const;
  void Insert(Chains* chains, int32_t end) const;
  int32_t NumMatching(int32_t end) const;
  void Grow(Chains* chains) const;
  Match FindIn(const Chains& chains) const;
  static MatchTrust TrustOf(int32_t length, int32_t num_occurrences, bool is_contested);

  std::vector<int32_t> tokens_;
  int32_t num_linked_ = 0;  // of tokens_
  Chains short_;
  Chains long_;
};

}  // namespace tandem
