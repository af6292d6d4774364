#include "common/speculation/philox.h"

#include <array>
#include <cmath>
#include <set>

#include "gtest/gtest.h"

namespace tandem {
namespace {

using Block = std::array<uint32_t, 4>;

// Random123's published known answers (kat_vectors, philox4x32 10 rounds).
TEST(PhiloxTest, GivesThePublishedKnownAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, UniformsOfPurposesAndPositionsDiffer) {
  std::set<double> seen;
  for (const NoisePurpose purpose :
       {NoisePurpose::kAccept, NoisePurpose::kSample, NoisePurpose::kPropose}) {
    for (int32_t position = 0; position < 100; ++position) {
      const double uniform = UniformAt(7, purpose, position);
      EXPECT_GT(uniform, 0.0);
      EXPECT_LT(uniform, 1.0);
      seen.insert(uniform);
    }
  }
  EXPECT_EQ(seen.size(), 300u);
}

// Pooled over ids of whole groups: the shortcut by groups must not show.
TEST(GumbelNoiseTest, IsStandardGumbelForEveryId) {
  constexpr int32_t kIds = 256;
  constexpr int32_t kPositions = 400;
  constexpr int32_t kBins = 20;
  std::array<int64_t, kBins> counts = {};
  for (int32_t position = 0; position < kPositions; ++position) {
    const GumbelNoise noise(/*seed=*/11, position);
    for (int32_t id = 0; id < kIds; ++id) {
      const double cdf = std::exp(-std::exp(-noise.At(id)));
      ++counts[std::min(kBins - 1, static_cast<int32_t>(cdf * kBins))];
    }
  }
  const double expected = 1.0 * kIds * kPositions / kBins;
  double chi_square = 0.0;
  for (const int64_t count : counts) {
    chi_square += (count - expected) * (count - expected) / expected;
  }
  EXPECT_LT(chi_square, 43.8);  // 19 degrees of freedom, p = 0.001
}

// Neighbours of one group share a spacing; were it used wrongly they would correlate.
TEST(GumbelNoiseTest, IdsOfOneGroupAreIndependent) {
  constexpr int32_t kPositions = 20000;
  std::array<std::array<int64_t, 4>, 4> counts = {};
  for (int32_t position = 0; position < kPositions; ++position) {
    const GumbelNoise noise(/*seed=*/5, position);
    const auto quarter = [&](int32_t id) {
      return std::min(3, static_cast<int32_t>(4 * std::exp(-std::exp(-noise.At(id)))));
    };
    ++counts[quarter(3)][quarter(40)];
  }
  double chi_square = 0.0;
  for (const auto& row : counts) {
    for (const int64_t count : row) {
      const double expected = kPositions / 16.0;
      chi_square += (count - expected) * (count - expected) / expected;
    }
  }
  EXPECT_LT(chi_square, 37.7);  // 15 degrees of freedom, p = 0.001
}

TEST(GumbelNoiseTest, GroupMaximumIsTheHoldersAndTheLargest) {
  for (int32_t position = 0; position < 50; ++position) {
    const GumbelNoise noise(/*seed=*/3, position);
    const GumbelNoise::Group group = noise.GroupAt(2);
    EXPECT_GE(group.holder, 128);
    EXPECT_LT(group.holder, 192);
    for (int32_t id = 128; id < 192; ++id) {
      EXPECT_EQ(noise.At(id), noise.At(id, group));
      if (id == group.holder) {
        EXPECT_EQ(noise.At(id), group.max_noise);
      } else {
        EXPECT_LE(noise.At(id), group.max_noise);
      }
    }
  }
}

TEST(ApproximateNoiseTest, IsNearTheNoise) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    for (int32_t position = 0; position < 60; ++position) {
      const GumbelNoise noise(seed * 0x123456789abcdefu, position);
      const ApproximateNoise approximate(seed * 0x123456789abcdefu, position);
      for (int32_t id = 0; id < 3000; ++id) {
        const double exact = noise.At(id);
        ASSERT_NEAR(approximate.At(id), exact, ApproximateNoise::kMaxError) << id;
        ASSERT_LT(exact, ApproximateNoise::kMaxNoise);
      }
    }
  }
}

}  // namespace
}  // namespace tandem
