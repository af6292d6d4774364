#include "common/kernels/cpu/elementwise.h"

#include <hwy/highway.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace tandem::cpu {
namespace {

std::vector<float> RandomFloats(size_t count, uint32_t seed, float spread = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> number(0.0f, spread);
  std::vector<float> values(count);
  for (float& value : values) value = number(random);
  return values;
}

void ForEachTarget(const std::function<void()>& run) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    run();
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(RmsNormTest, EqualsItsFormula) {
  ThreadPool pool(2);
  ForEachTarget([&] {
    for (const int64_t dim : {1, 7, 16, 33, 576}) {
      const auto x = RandomFloats(3 * dim, 1);
      const auto weight = RandomFloats(dim, 2);
      std::vector<float> out(x.size());
      RmsNorm(x.data(), weight.data(), 1e-5f, 3, dim, out.data(), pool);
      for (int64_t r = 0; r < 3; ++r) {
        double sum = 0;
        for (int64_t i = 0; i < dim; ++i) sum += double{x[r * dim + i]} * x[r * dim + i];
        for (int64_t i = 0; i < dim; ++i) {
          const double want = x[r * dim + i] / std::sqrt(sum / dim + 1e-5) * weight[i];
          EXPECT_NEAR(out[r * dim + i], want, 1e-5 * (1 + std::fabs(want)));
        }
      }
    }
  });
}

TEST(SiluMulTest, EqualsItsFormulaAlsoFarOut) {
  ThreadPool pool(1);
  ForEachTarget([&] {
    for (const int64_t dim : {1, 15, 16, 17, 100}) {
      auto gate = RandomFloats(dim, 3, 20.0f);
      const auto up = RandomFloats(dim, 4);
      if (dim > 2) gate[0] = 90.0f, gate[1] = -90.0f;
      std::vector<float> out(gate.size());
      SiluMul(gate.data(), up.data(), 1, dim, out.data(), pool);
      for (int64_t i = 0; i < dim; ++i) {
        const double want = gate[i] / (1 + std::exp(-double{gate[i]})) * up[i];
        EXPECT_NEAR(out[i], want, 1e-5 * (1 + std::fabs(want))) << gate[i];
      }
    }
  });
}

TEST(RopeTest, TurnsPairsByPositionAndLeavesTheRest) {
  ThreadPool pool(2);
  constexpr int32_t kHeadDim = 10, kRopeDim = 8, kHeads = 3;
  std::vector<float> inv_freq;
  for (int i = 0; i < kRopeDim / 2; ++i) {
    inv_freq.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / kRopeDim)));
  }
  const std::vector<int32_t> positions = {0, 5, 4000};
  std::vector<float> cosines(3 * kRopeDim / 2), sines(cosines.size());
  RopeAngles(positions.data(), 3, inv_freq.data(), kRopeDim / 2, cosines.data(), sines.data());
  const auto before = RandomFloats(3 * 40, 5);
  auto x = before;
  Rope({.x = x.data(),
        .cosines = cosines.data(),
        .sines = sines.data(),
        .num_rows = 3,
        .x_stride = 40,
        .num_heads = kHeads,
        .head_dim = kHeadDim,
        .rope_dim = kRopeDim},
       pool);
  for (int r = 0; r < 3; ++r) {
    for (int h = 0; h < kHeads; ++h) {
      const float* from = &before[r * 40 + h * kHeadDim];
      const float* to = &x[r * 40 + h * kHeadDim];
      for (int i = 0; i < kRopeDim / 2; ++i) {
        const double angle = double{inv_freq[i]} * positions[r];
        EXPECT_NEAR(to[2 * i], from[2 * i] * std::cos(angle) - from[2 * i + 1] * std::sin(angle),
                    1e-5);
        EXPECT_NEAR(to[2 * i + 1],
                    from[2 * i] * std::sin(angle) + from[2 * i + 1] * std::cos(angle), 1e-5);
      }
      EXPECT_EQ(to[8], from[8]);
      EXPECT_EQ(to[9], from[9]);
    }
    EXPECT_EQ(x[r * 40 + 35], before[r * 40 + 35]);
  }
}

TEST(ArgMaxTest, LowestIndexOfTheLargest) {
  ForEachTarget([&] {
    for (const size_t n : {1, 2, 16, 17, 100}) {
      auto x = RandomFloats(n, 6);
      for (size_t i = 0; i < n; ++i) {
        auto y = x;
        y[i] = 50.0f;
        if (i + 1 < n) y[n - 1] = 50.0f;
        EXPECT_EQ(ArgMax(y.data(), static_cast<int64_t>(n)), static_cast<int64_t>(i));
        y[i] = NAN;
        EXPECT_EQ(ArgMax(y.data(), static_cast<int64_t>(n)), -1);
      }
      x.assign(n, -INFINITY);
      EXPECT_EQ(ArgMax(x.data(), static_cast<int64_t>(n)), -1);
    }
  });
}

}  // namespace
}  // namespace tandem::cpu
