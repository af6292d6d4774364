#include "common/model/key_offset.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace tandem {
namespace {

// The closed form must be what it stands for: the mean key, turned to every position.
TEST(KeyOffsetTest, IsTheMeanKeyAveragedOverAllPositions) {
  constexpr int32_t kHeadDim = 6, kRopeDim = 4, kHeads = 2, kPositions = 50;
  const std::vector<float> inv_freq = {0.7f, 0.001f};
  KeyOffset offset(/*num_layers=*/2, kHeads, kHeadDim);
  const std::vector<float> keys = {1, 2, 3, 4, 5, 6, -1, 0, 1, 0, 2, 2,   // row 0
                                   3, 2, 1, 0, 1, 2, 1,  1, 1, 1, 4, 0};  // row 1
  offset.Observe(/*layer=*/1, keys.data(), 2);
  offset.Observe(/*layer=*/0, keys.data(), 1);
  offset.Build(inv_freq.data(), kRopeDim, kPositions);

  std::vector<double> want(kHeads * kHeadDim, 0.0);
  for (int32_t p = 0; p < kPositions; ++p) {
    for (int32_t i = 0; i < kHeads * kHeadDim; i += 2) {
      const double a = (double{keys[i]} + keys[12 + i]) / 2;
      const double b = (double{keys[i + 1]} + keys[13 + i]) / 2;
      const int32_t dim = i % kHeadDim;
      const double angle = dim < kRopeDim ? double{inv_freq[dim / 2]} * p : 0.0;
      want[i] += (a * std::cos(angle) - b * std::sin(angle)) / kPositions;
      want[i + 1] += (a * std::sin(angle) + b * std::cos(angle)) / kPositions;
    }
  }
  std::vector<float> zero(kHeads * kHeadDim, 0.0f);
  offset.Subtract(/*layer=*/1, zero.data(), 1);
  for (size_t i = 0; i < zero.size(); ++i) EXPECT_NEAR(zero[i], -want[i], 1e-5) << i;
}

}  // namespace
}  // namespace tandem
