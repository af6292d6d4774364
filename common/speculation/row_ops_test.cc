#include "common/speculation/row_ops.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace tandem {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> RandomRow(int32_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 5.0f);
  std::vector<float> row(size);
  for (float& value : row) value = normal(random);
  return row;
}

TEST(RowOpsTest, ArgMaxEqualsMaxElementAtEverySize) {
  for (int32_t size = 0; size < 200; ++size) {
    std::vector<float> row = RandomRow(size, size);
    for (float& value : row) value = std::round(value);  // many ties
    const auto best = std::max_element(row.begin(), row.end());
    EXPECT_EQ(ArgMax(row), size == 0 ? -1 : best - row.begin());
  }
  const std::vector<float> large = RandomRow(49152, 1);
  EXPECT_EQ(ArgMax(large), std::max_element(large.begin(), large.end()) - large.begin());
}

TEST(RowOpsTest, ArgMaxSkipsNanAndMinusInfinity) {
  EXPECT_EQ(ArgMax(std::vector<float>{kNan, -kInfinity, -3.0f, kNan}), 2);
  EXPECT_EQ(ArgMax(std::vector<float>{kNan, -kInfinity}), -1);
  EXPECT_EQ(ArgMax(std::vector<float>{1.0f, kInfinity}), 1);
}

TEST(RowOpsTest, ExpIsAccurateOverItsWholeRange) {
  std::vector<float> row;
  for (float x = -86.9f; x <= 0.0f; x += 0.0137f) row.push_back(x);
  std::vector<float> result = row;
  ExpInPlace(absl::MakeSpan(result));
  for (size_t i = 0; i < row.size(); ++i) {
    const double expected = std::exp(static_cast<double>(row[i]));
    ASSERT_NEAR(result[i] / expected, 1.0, 3e-7) << row[i];
  }
  std::vector<float> special = {0.0f, -0.0f, -88.0f, -kInfinity};
  ExpInPlace(absl::MakeSpan(special));
  EXPECT_EQ(special, (std::vector<float>{1.0f, 1.0f, 0.0f, 0.0f}));
}

TEST(RowOpsTest, SumExpIsAccurateForLargeVocabularies) {
  const std::vector<float> row = RandomRow(128256, 3);
  const float max = *std::max_element(row.begin(), row.end());
  double expected = 0.0;
  for (const float value : row) expected += std::exp(static_cast<double>(value) - max);
  EXPECT_NEAR(SumExp(row, max) / expected, 1.0, 1e-6);
}

TEST(RowOpsTest, SampleWeightsNeverChoosesWeightZero) {
  std::vector<float> weights(3000, 0.0f);
  weights[1500] = 0.25f;
  weights[2999] = 0.75f;
  EXPECT_EQ(SampleWeights(weights, 1e-16), 1500);
  EXPECT_EQ(SampleWeights(weights, 0.2499), 1500);
  EXPECT_EQ(SampleWeights(weights, 0.2501), 2999);
  EXPECT_EQ(SampleWeights(weights, 1.0 - 1e-16), 2999);
  weights[2999] = 0.0f;
  EXPECT_EQ(SampleWeights(weights, 1.0), 1500);
  EXPECT_EQ(SampleWeights(std::vector<float>(100, 0.0f), 0.5), -1);
}

TEST(RowOpsTest, LowerBoundIsReachedByAtLeastThatMany) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const std::vector<float> row = RandomRow(1000, seed);
    for (const int32_t count : {1, 5, 15, 16, 17}) {
      std::vector<float> group_max;
      GroupMaxima(row, &group_max);
      const float bound = LowerBoundOfLargest(count, &group_max);
      EXPECT_GE(std::count_if(row.begin(), row.end(), [&](float v) { return v >= bound; }), count);
    }
  }
}

}  // namespace
}  // namespace tandem
