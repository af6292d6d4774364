#include "common/speculation/lookup.h"

#include <random>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace tandem {
namespace {

int32_t MatchLength(const std::vector<int32_t>& tokens, int32_t end) {
  const int32_t size = static_cast<int32_t>(tokens.size());
  int32_t matched = 0;
  while (matched < PromptLookup::kMaxMatch && matched < end &&
         tokens[end - 1 - matched] == tokens[size - 1 - matched]) {
    ++matched;
  }
  return matched;
}

// The definition in the header, by looking everywhere.
PromptLookup::Match FindRef(const std::vector<int32_t>& tokens) {
  const int32_t size = static_cast<int32_t>(tokens.size());
  for (const int32_t n : {PromptLookup::kLongMatch, PromptLookup::kShortMatch}) {
    PromptLookup::Match best;
    int32_t candidates = 0;
    std::set<int32_t> followers;
    for (int32_t end = size - 1; end >= n && candidates < PromptLookup::kMaxCandidates; --end) {
      const int32_t matched = MatchLength(tokens, end);
      if (matched < n) continue;
      ++candidates;
      followers.insert(tokens[end]);
      if (matched > best.length) best = {.length = matched, .next_position = end};
    }
    if (best.length == 0) continue;
    const bool is_long = best.length >= 8;
    if (best.length == PromptLookup::kMaxMatch) {
      best.trust = MatchTrust::kSure;
    } else if (followers.size() > 1) {
      best.trust = MatchTrust::kContested;
    } else if (candidates > 1) {
      best.trust = is_long ? MatchTrust::kSure : MatchTrust::kLong;
    } else {
      best.trust = is_long           ? MatchTrust::kLong
                   : best.length < 4 ? MatchTrust::kShort
                                     : MatchTrust::kMedium;
    }
    return best;
  }
  return {};
}

TEST(PromptLookupTest, FindsWhatLookingEverywhereFinds) {
  std::mt19937 random(1);
  for (const int32_t alphabet : {1, 2, 3, 8, 40, 1000}) {
    PromptLookup lookup;
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < 1500; ++i) {
      tokens.push_back(std::uniform_int_distribution<int32_t>(0, alphabet - 1)(random));
      lookup.Append({tokens.back()});
      if (random() % 8 == 0) lookup.Link();
      const PromptLookup::Match match = lookup.Find();
      const PromptLookup::Match expected = FindRef(tokens);
      ASSERT_EQ(match.length, expected.length) << "alphabet " << alphabet << " at " << i;
      ASSERT_EQ(match.next_position, expected.next_position);
      ASSERT_EQ(match.trust, expected.trust) << "alphabet " << alphabet << " at " << i;
    }
  }
}

TEST(PromptLookupTest, DraftsWhatFollowedTheMatch) {
  PromptLookup lookup;
  lookup.Append({1, 2, 3, 4, 5, 6, 7, 9, 9, 2, 3});
  const PromptLookup::Match match = lookup.Find();
  EXPECT_EQ(match.length, 2);
  EXPECT_EQ(lookup.Draft(match, 4), (std::vector<int32_t>{4, 5, 6, 7}));
  EXPECT_TRUE(lookup.Draft(match, 0).empty());
}

TEST(PromptLookupTest, FollowsALoopPastTheEnd) {
  PromptLookup lookup;
  lookup.Append({7, 1, 2, 3, 1, 2, 3, 1, 2});
  EXPECT_EQ(lookup.Draft(lookup.Find(), 7), (std::vector<int32_t>{3, 1, 2, 3, 1, 2, 3}));
}

TEST(PromptLookupTest, FindsNothingInNewText) {
  PromptLookup lookup;
  EXPECT_EQ(lookup.Find().length, 0);
  for (int32_t i = 0; i < 5000; ++i) {
    lookup.Append({i});
    ASSERT_EQ(lookup.Find().length, 0);
  }
}

TEST(PromptLookupTest, AppendingAtOnceEqualsAppendingOneByOne) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 3000; ++i) tokens.push_back((i * i) % 61);
  PromptLookup at_once;
  at_once.Append(tokens);
  PromptLookup one_by_one;
  for (const int32_t id : tokens) one_by_one.Append({id});
  EXPECT_EQ(at_once.Find().next_position, one_by_one.Find().next_position);
  one_by_one.Link();
  EXPECT_EQ(at_once.Find().next_position, one_by_one.Find().next_position);
}

}  // namespace
}  // namespace tandem
