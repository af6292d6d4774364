#include "common/speculation/lookup.h"

#include <algorithm>
#include <bit>

#include "common/base/check.h"

namespace tandem {

PromptLookup::PromptLookup()
    : short_{.n = kShortMatch, .heads = {}, .previous = {}},
      long_{.n = kLongMatch, .heads = {}, .previous = {}} {}

void PromptLookup::Append(absl::Span<const int32_t> token_ids) {
  tokens_.insert(tokens_.end(), token_ids.begin(), token_ids.end());
}

void PromptLookup::Link() {
  if (num_linked_ == length()) return;
  LinkIn(&short_);
  LinkIn(&long_);
  num_linked_ = length();
}

void PromptLookup::LinkIn(Chains* chains) const {
  chains->previous.resize(tokens_.size(), -1);
  if (tokens_.size() > chains->heads.size()) {
    Grow(chains);
    return;
  }
  for (int32_t end = num_linked_ + 1; end <= length(); ++end) Insert(chains, end);
}

uint32_t PromptLookup::HashAt(int32_t end, int32_t n) const {
  uint64_t hash = 0;
  for (int32_t i = end - n; i < end; ++i) {
    hash = (hash ^ static_cast<uint32_t>(tokens_[i])) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 29;
  }
  return static_cast<uint32_t>(hash >> 16);
}

void PromptLookup::Insert(Chains* chains, int32_t end) const {
  if (end < chains->n) return;
  int32_t& head = chains->heads[HashAt(end, chains->n) & (chains->heads.size() - 1)];
  chains->previous[end - 1] = head;
  head = end;
}

// Links all n-grams anew into at least twice the heads.
void PromptLookup::Grow(Chains* chains) const {
  constexpr size_t kFirstSize = 256;
  const size_t size = std::bit_ceil(std::max(tokens_.size(), 2 * chains->heads.size()));
  chains->heads.assign(std::max(kFirstSize, size), -1);
  for (int32_t end = chains->n; end <= length(); ++end) Insert(chains, end);
}

MatchTrust PromptLookup::TrustOf(int32_t length, int32_t num_occurrences, bool is_contested) {
  if (length == kMaxMatch) return MatchTrust::kSure;
  if (is_contested) return MatchTrust::kContested;
  if (num_occurrences > 1) return length < 8 ? MatchTrust::kLong : MatchTrust::kSure;
  return length < 4 ? MatchTrust::kShort : length < 8 ? MatchTrust::kMedium : MatchTrust::kLong;
}

// How many tokens before `end` are those before the sequence's end, kMaxMatch at most.
int32_t PromptLookup::NumMatching(int32_t end) const {
  int32_t matched = 0;
  while (matched < std::min(kMaxMatch, end) &&
         tokens_[end - 1 - matched] == tokens_[length() - 1 - matched]) {
    ++matched;
  }
  return matched;
}

PromptLookup::Match PromptLookup::FindIn(const Chains& chains) const {
  Match best;
  if (length() < chains.n) return best;
  int32_t candidates = 0;
  bool is_contested = false;
  // False when it need not look on.
  const auto look = [&](int32_t end) {
    const int32_t matched = NumMatching(end);
    if (matched < chains.n) return true;
    is_contested = is_contested || (candidates > 0 && tokens_[end] != tokens_[best.next_position]);
    ++candidates;
    if (matched > best.length) best = {.length = matched, .next_position = end};
    return matched < kMaxMatch && candidates < kMaxCandidates;
  };
  bool looks_on = true;
  for (int32_t end = length() - 1; looks_on && end > num_linked_; --end) looks_on = look(end);
  if (looks_on && num_linked_ >= chains.n) {
    // The chain also has n-grams of equal hash: those are looked at and not counted as candidates,
    // so their number is bounded too.
    constexpr int32_t kMaxLooks = 4 * kMaxCandidates;
    int32_t end = chains.heads[HashAt(length(), chains.n) & (chains.heads.size() - 1)];
    if (end == length()) end = chains.previous[end - 1];
    for (int32_t looks = 0; looks_on && end >= 0 && looks < kMaxLooks; ++looks) {
      looks_on = look(end);
      end = chains.previous[end - 1];
    }
  }
  best.trust = TrustOf(best.length, candidates, is_contested);
  return best;
}

PromptLookup::Match PromptLookup::Find() {
  if (length() - num_linked_ > kMaxUnlinked) Link();
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
