#include "common/speculation/lookup.h"

#include <algorithm>

#include "common/base/check.h"

namespace tandem {

PromptLookup::PromptLookup()
    : short_{.n = kShortMatch, .heads = {}, .previous = {}},
      long_{.n = kLongMatch, .heads = {}, .previous = {}} {}

void PromptLookup::Append(absl::Span<const int32_t> token_ids) {
  for (const int32_t id : token_ids) {
    tokens_.push_back(id);
    Insert(&short_, length());
    Insert(&long_, length());
  }
}

uint32_t PromptLookup::HashAt(int32_t end, int32_t n) const {
  uint64_t hash = 0;
  for (int32_t i = end - n; i < end; ++i) {
    hash = (hash ^ static_cast<uint32_t>(tokens_[i])) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 29;
  }
  return static_cast<uint32_t>(hash >> 16);
}

void PromptLookup::Insert(Chains* chains, int32_t end) {
  chains->previous.push_back(-1);
  if (end < chains->n) return;
  if (end > static_cast<int32_t>(chains->heads.size())) {
    Grow(chains);
    return;
  }
  int32_t& head = chains->heads[HashAt(end, chains->n) & (chains->heads.size() - 1)];
  chains->previous[end - 1] = head;
  head = end;
}

// Links all n-grams anew into twice the heads.
void PromptLookup::Grow(Chains* chains) {
  constexpr size_t kFirstSize = 256;
  chains->heads.assign(std::max(kFirstSize, 2 * chains->heads.size()), -1);
  const uint32_t mask = static_cast<uint32_t>(chains->heads.size() - 1);
  for (int32_t end = chains->n; end <= length(); ++end) {
    int32_t& head = chains->heads[HashAt(end, chains->n) & mask];
    chains->previous[end - 1] = head;
    head = end;
  }
}

MatchTrust PromptLookup::TrustOf(int32_t length, int32_t num_occurrences, bool is_contested) {
  if (length == kMaxMatch) return MatchTrust::kSure;
  if (is_contested) return MatchTrust::kContested;
  if (num_occurrences > 1) return length < 8 ? MatchTrust::kLong : MatchTrust::kSure;
  return length < 4 ? MatchTrust::kShort : length < 8 ? MatchTrust::kMedium : MatchTrust::kLong;
}

PromptLookup::Match PromptLookup::FindIn(const Chains& chains) const {
  Match best;
  if (length() < chains.n) return best;
  // The chain begins with the sequence's own end. It also has n-grams of equal hash:
  // those are looked at and not counted as candidates, so their number is bounded too.
  constexpr int32_t kMaxLooks = 4 * kMaxCandidates;
  int32_t end = chains.previous[length() - 1];
  int32_t candidates = 0;
  bool is_contested = false;
  for (int32_t looks = 0; end >= 0 && looks < kMaxLooks && candidates < kMaxCandidates;
       ++looks, end = chains.previous[end - 1]) {
    int32_t matched = 0;
    while (matched < std::min(kMaxMatch, end) &&
           tokens_[end - 1 - matched] == tokens_[length() - 1 - matched]) {
      ++matched;
    }
    if (matched < chains.n) continue;
    is_contested = is_contested || (candidates > 0 && tokens_[end] != tokens_[best.next_position]);
    ++candidates;
    if (matched > best.length) best = {.length = matched, .next_position = end};
    if (matched == kMaxMatch) break;
  }
  best.trust = TrustOf(best.length, candidates, is_contested);
  return best;
}

PromptLookup::Match PromptLookup::Find() const {
  const Match match = FindIn(long_);
  return match.length > 0 ? match : FindIn(short_);
}

std::vector<int32_t> PromptLookup::Draft(const Match& match, int32_t max_tokens) const {
  TANDEM_CHECK(match.length > 0 && match.next_position < length());
  std::vector<int32_t> draft;
  const int32_t period = length() - match.next_position;
  for (int32_t i = 0; i < max_tokens; ++i) {
    draft.push_back(i < period ? tokens_[match.next_position + i] : draft[i - period]);
  }
  return draft;
}

}  // namespace tandem
