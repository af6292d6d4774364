#include "common/kernels/cpu/key_feedback.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "common/kernels/cpu/attention_fixture.h"

namespace tandem::cpu {
namespace {

constexpr int32_t kDim = 64;

std::vector<float> Normal(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// Queries as models have them: one direction in common, and the rest in few.
std::vector<float> Queries(int64_t rows, uint32_t seed) {
  const std::vector<float> directions = Normal(4 * kDim, 100);
  const std::vector<float> weights = Normal(rows * 3, seed);
  std::vector<float> q = Normal(rows * kDim, seed + 1);
  for (int64_t row = 0; row < rows; ++row) {
    for (int32_t i = 0; i < kDim; ++i) {
      float& value = q[row * kDim + i];
      value = 0.1f * value + 2.0f * directions[i];
      for (int32_t j = 0; j < 3; ++j)
        value += weights[row * 3 + j] * directions[(j + 1) * kDim + i];
    }
  }
  return q;
}

// The error of what attention gives with k4 keys, against the same with f16 keys.
double ErrorOfAttention(const float* k_feedback, ThreadPool& pool) {
  FixtureShape shape = {.num_heads = 1,
                        .num_kv_heads = 1,
                        .head_dim = kDim,
                        .k_type = KvType::kF16,
                        .v_type = KvType::kF16,
                        .sequences = {{.context = 255, .num_rows = 1}}};
  AttentionFixture exact(shape, 1, pool);
  shape.k_type = KvType::k4;
  AttentionFixture coarse(shape, 1, pool);
  coarse.k_feedback = k_feedback;
  coarse.Append(0, 0, 256, pool);
  double sum = 0.0;
  const std::vector<float> q = Queries(32, 7);
  for (int32_t row = 0; row < 32; ++row) {
    exact.q.assign(q.begin() + row * kDim, q.begin() + (row + 1) * kDim);
    coarse.q = exact.q;
    sum += RelativeError(coarse.Run(pool), exact.Run(pool));
  }
  return sum / 32;
}

TEST(KeyFeedbackTest, LowersTheErrorForQueriesItHasNotSeen) {
  ThreadPool pool(1);
  KeyFeedback feedback(1, 1, 1, kDim);
  EXPECT_EQ(feedback.Matrices(0), nullptr);
  feedback.Observe(0, Queries(64, 3).data(), kDim, 64);
  feedback.Build(nullptr, 0, 1);
  EXPECT_LT(ErrorOfAttention(feedback.Matrices(0), pool), 0.6 * ErrorOfAttention(nullptr, pool));
}

// The average over positions in closed form is that over the positions one by one.
TEST(KeyFeedbackTest, TurnsAreAveragedOverPositions) {
  constexpr int32_t kPositions = 4096;
  constexpr int32_t kRopeDim = 48;  // the last dimensions stay
  std::vector<float> inv_freq;
  for (int32_t i = 0; i < kRopeDim / 2; ++i) {
    inv_freq.push_back(std::pow(1e5f, -2.0f * static_cast<float>(i) / kRopeDim));
  }
  const std::vector<float> q = Queries(4, 5);
  KeyFeedback closed(1, 1, 1, kDim);
  closed.Observe(0, q.data(), kDim, 4);
  closed.Build(inv_freq.data(), kRopeDim, kPositions);
  KeyFeedback each(1, 1, 1, kDim);
  for (int32_t position = 0; position < kPositions; ++position) {
    std::vector<float> turned = q;
    for (int32_t row = 0; row < 4; ++row) {
      for (int32_t i = 0; i < kRopeDim / 2; ++i) {
        float* pair = &turned[row * kDim + 2 * i];
        const double angle = static_cast<double>(position) * inv_freq[i];
        const double x = pair[0], y = pair[1];
        pair[0] = static_cast<float>(x * std::cos(angle) - y * std::sin(angle));
        pair[1] = static_cast<float>(x * std::sin(angle) + y * std::cos(angle));
      }
    }
    each.Observe(0, turned.data(), kDim, 4);
  }
  each.Build(nullptr, 0, 1);
  // A sum over whole positions and an integral differ by the fast turning pairs.
  for (int32_t i = 0; i < kDim * kDim; ++i) {
    ASSERT_NEAR(closed.Matrices(0)[i], each.Matrices(0)[i], 0.02) << i / kDim << ", " << i % kDim;
  }
}

TEST(KeyFeedbackTest, QueriesOfADamagedModelGiveNoFeedback) {
  const std::vector<float> q(kDim, std::numeric_limits<float>::quiet_NaN());
  KeyFeedback feedback(2, 1, 1, kDim);
  feedback.Observe(1, q.data(), kDim, 1);  // and none for layer 0
  feedback.Build(nullptr, 0, 1);
  for (const int32_t layer : {0, 1}) {
    for (int32_t i = 0; i < kDim * kDim; ++i) ASSERT_EQ(feedback.Matrices(layer)[i], 0.0f);
  }
}

}  // namespace
}  // namespace tandem::cpu
