#include "common/kv/prefix_index.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "gtest/gtest.h"

namespace tandem {
namespace {

TEST(PrefixIndexTest, APageIsFoundOnlyAfterThePrefixItFollows) {
  PrefixIndex index;
  const PrefixId first = index.Insert(kEmptyPrefix, {1, 2}, PageId(7));
  const PrefixId second = index.Insert(first, {1, 2}, PageId(3));
  EXPECT_EQ(index.Find(kEmptyPrefix, {1, 2})->page, PageId(7));
  EXPECT_EQ(index.Find(first, {1, 2})->page, PageId(3));
  EXPECT_EQ(index.Find(first, {1, 2})->prefix, second);
  EXPECT_FALSE(index.Find(second, {1, 2}).has_value());
  EXPECT_FALSE(index.Find(kEmptyPrefix, {1, 3}).has_value());
  EXPECT_EQ(index.size(), 2);
}

TEST(PrefixIndexTest, WhatWasRemovedIsNotFoundEvenAfterTheSamePrefixComesBack) {
  PrefixIndex index;
  const PrefixId first = index.Insert(kEmptyPrefix, {1}, PageId(0));
  index.Insert(first, {2}, PageId(1));
  index.Remove(PageId(1));
  index.Remove(PageId(0));
  EXPECT_EQ(index.size(), 0);
  const PrefixId again = index.Insert(kEmptyPrefix, {1}, PageId(0));
  EXPECT_NE(again, first);
  EXPECT_FALSE(index.Find(again, {2}).has_value());
  EXPECT_FALSE(index.Find(first, {2}).has_value());
}

TEST(PrefixIndexDeathTest, OwnBugsStopTheProcess) {
  PrefixIndex index;
  const PrefixId first = index.Insert(kEmptyPrefix, {1}, PageId(0));
  index.Insert(first, {2}, PageId(1));
  EXPECT_DEATH(index.Insert(kEmptyPrefix, {1}, PageId(2)), "CHECK failed");
  EXPECT_DEATH(index.Insert(PrefixId(99), {1}, PageId(2)), "CHECK failed");
  EXPECT_DEATH(index.Insert(first, {3}, PageId(1)), "CHECK failed");
  EXPECT_DEATH(index.Remove(PageId(0)), "CHECK failed");  // another follows it
  EXPECT_DEATH(index.Remove(PageId(5)), "CHECK failed");
}

// Against the obvious model: a map from all tokens of a prefix to its page.
TEST(PrefixIndexPropertyTest, FindsWhatAMapOfWholePrefixesFinds) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    PrefixIndex index;
    std::map<std::vector<int32_t>, PageId> model;
    std::set<int32_t> used_pages;
    constexpr int32_t kPageTokens = 2;
    for (int step = 0; step < 300; ++step) {
      std::vector<int32_t> tokens(kPageTokens * (1 + random() % 4));
      for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 2);
      PrefixId parent = kEmptyPrefix;
      std::vector<int32_t> prefix;
      for (size_t i = 0; i < tokens.size(); i += kPageTokens) {
        const auto page_tokens = absl::MakeConstSpan(tokens).subspan(i, kPageTokens);
        prefix.insert(prefix.end(), page_tokens.begin(), page_tokens.end());
        const auto found = index.Find(parent, page_tokens);
        const auto expected = model.find(prefix);
        ASSERT_EQ(found.has_value(), expected != model.end());
        if (found.has_value()) {
          ASSERT_EQ(found->page, expected->second);
          parent = found->prefix;
          continue;
        }
        int32_t page = 0;
        while (used_pages.contains(page)) ++page;
        used_pages.insert(page);
        model[prefix] = PageId(page);
        parent = index.Insert(parent, page_tokens, PageId(page));
      }
      // One that nothing follows goes.
      auto victim = model.begin();
      std::advance(victim, random() % model.size());
      const auto next = std::next(victim);
      const bool is_leaf =
          next == model.end() ||
          !std::equal(victim->first.begin(), victim->first.end(), next->first.begin(),
                      next->first.begin() + std::min(victim->first.size(), next->first.size()));
      if (!is_leaf) continue;
      index.Remove(victim->second);
      used_pages.erase(static_cast<int32_t>(victim->second));
      model.erase(victim);
    }
    ASSERT_EQ(index.size(), static_cast<int32_t>(model.size()));
  }
}

}  // namespace
}  // namespace tandem
