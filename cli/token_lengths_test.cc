#include "cli/token_lengths.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"

namespace tandem {
namespace {

std::vector<int32_t> DrawMany(const std::string& text, uint64_t seed) {
  const TokenLengths lengths = ParseTokenLengths(text).value();
  std::mt19937_64 random(seed);
  std::vector<int32_t> drawn(20000);
  for (int32_t& length : drawn) length = Draw(lengths, random);
  return drawn;
}

double ShareOf(const std::vector<int32_t>& drawn, int32_t low, int32_t high) {
  const auto is_within = [&](int32_t length) { return length >= low && length <= high; };
  return std::count_if(drawn.begin(), drawn.end(), is_within) / static_cast<double>(drawn.size());
}

TEST(TokenLengthsTest, AreANumberOrTwoOrLogNormal) {
  EXPECT_EQ(ParseTokenLengths("12")->high, 12);
  EXPECT_EQ(ParseTokenLengths("3:9")->low, 3);
  EXPECT_EQ(ParseTokenLengths("3:9")->lognormal_mean, 0.0);
  const TokenLengths lengths = ParseTokenLengths("lognormal:200:1:1024").value();
  EXPECT_EQ(lengths.lognormal_mean, 200.0);
  EXPECT_EQ(lengths.low, 1);
  EXPECT_EQ(lengths.high, 1024);
  for (const char* text :
       {"", "x", "0", "9:3", "1:2:3", "-4", "lognormal", "lognormal:200", "lognormal:200:1",
        "lognormal:0:1:9", "lognormal:nan:1:9", "lognormal:inf:1:9", "lognormal:200:9:1",
        "normal:200:1:9", "lognormal:200:1:9:4", "1:2:3:4"}) {
    EXPECT_FALSE(ParseTokenLengths(text).ok()) << text;
  }
}

TEST(TokenLengthsTest, EvenOnesReachBothEnds) {
  const std::vector<int32_t> drawn = DrawMany("3:6", /*seed=*/1);
  for (int32_t length = 3; length <= 6; ++length) {
    EXPECT_NEAR(ShareOf(drawn, length, length), 0.25, 0.02);
  }
}

// Expected: of a log-normal distribution whose logarithm deviates by 1. 20000 draws tell its mean
// to 1 %.
TEST(TokenLengthsTest, LogNormalOnesHaveTheirMeanAndALongTail) {
  const std::vector<int32_t> drawn = DrawMany("lognormal:200:1:1000000", /*seed=*/2);
  const double mean = std::accumulate(drawn.begin(), drawn.end(), 0.0) / drawn.size();
  EXPECT_NEAR(mean, 200, 8);
  EXPECT_NEAR(ShareOf(drawn, 1, 121), 0.5, 0.02);
  EXPECT_NEAR(ShareOf(drawn, 629, 1000000), 0.05, 0.01);
}

TEST(TokenLengthsTest, LogNormalOnesAreClippedAndTheSameForTheSameSeed) {
  const std::vector<int32_t> drawn = DrawMany("lognormal:200:50:400", /*seed=*/3);
  EXPECT_EQ(*std::min_element(drawn.begin(), drawn.end()), 50);
  EXPECT_EQ(*std::max_element(drawn.begin(), drawn.end()), 400);
  EXPECT_EQ(drawn, DrawMany("lognormal:200:50:400", /*seed=*/3));
  EXPECT_NE(drawn, DrawMany("lognormal:200:50:400", /*seed=*/4));
}

}  // namespace
}  // namespace tandem
