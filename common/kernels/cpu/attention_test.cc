#include "common/kernels/cpu/attention.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "common/kernels/cpu/attention_fixture.h"

namespace tandem::cpu {
namespace {

constexpr KvType kTypes[] = {KvType::kF16, KvType::k8, KvType::k4};

// Against the reference on the same stored bytes. f16 K: f32 rounding only. Otherwise
// the query's 8 bits: a step of 1/127 of a block's largest value is an error of about
// 0.6 % of a query, hence of a score of about 1, hence of the weights.
double Tolerance(KvType k_type) { return k_type == KvType::kF16 ? 2e-6 : 1.2e-2; }

// Of Gaussian values stored: 11 bits; 8 bits (steps of 1/127 of some 2.5 deviations);
// and the codebook's 0.075, the square root of its mean squared error.
double StorageError(KvType type) {
  if (type == KvType::kF16) return 5e-4;
  return type == KvType::k8 ? 8e-3 : 8.5e-2;
}

// Runs a body once for each SIMD target that was compiled and that this machine has.
template <class Body>
void ForEachTarget(const Body& body) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    SCOPED_TRACE(hwy::TargetName(target));
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

void ExpectNearReference(const FixtureShape& shape, uint32_t seed, ThreadPool& pool) {
  AttentionFixture fixture(shape, seed, pool);
  const double error = RelativeError(fixture.Run(pool), fixture.RunRef());
  EXPECT_LT(error, Tolerance(shape.k_type))
      << KvTypeName(shape.k_type) << "/" << KvTypeName(shape.v_type) << " heads " << shape.num_heads
      << "/" << shape.num_kv_heads << " dim " << shape.head_dim << " page " << shape.page_positions
      << " context " << shape.sequences[0].context << " rows " << shape.sequences[0].num_rows;
}

TEST(AttentionTest, EveryTypePairMatchesTheReference) {
  ThreadPool pool(2);
  ForEachTarget([&] {
    for (const KvType k_type : kTypes) {
      for (const KvType v_type : kTypes) {
        ExpectNearReference({.num_heads = 6,
                             .num_kv_heads = 2,
                             .k_type = k_type,
                             .v_type = v_type,
                             .sequences = {{.context = 300, .num_rows = 3}}},
                            1, pool);
      }
    }
  });
}

// One position, both sides of a group, page, tile and split, with every number of rows
// that changes how queries are grouped.
TEST(AttentionTest, EveryBoundaryMatchesTheReference) {
  ThreadPool pool(2);
  ForEachTarget([&] {
    for (const KvType type : kTypes) {
      for (const int32_t context : {0, 1, 7, 8, 15, 16, 23, 62, 63, 64, 65, 255, 256, 257}) {
        for (const int32_t num_rows : {1, 2, 3, 4, 5, 9}) {
          ExpectNearReference({.num_heads = 3,
                               .num_kv_heads = 1,
                               .head_dim = 32,
                               .page_positions = 24,
                               .k_type = type,
                               .v_type = type,
                               .sequences = {{.context = context, .num_rows = num_rows}}},
                              static_cast<uint32_t>(context * 16 + num_rows), pool);
        }
      }
    }
  });
}

TEST(AttentionTest, EveryHeadShapeMatchesTheReference) {
  ThreadPool pool(2);
  struct Heads {
    int32_t num_heads, num_kv_heads, head_dim;
  };
  ForEachTarget([&] {
    for (const Heads heads : {Heads{4, 4, 64}, Heads{8, 2, 128}, Heads{5, 1, 96}, Heads{7, 1, 32},
                              Heads{40, 1, 32}, Heads{2, 2, 256}, Heads{3, 1, 80 * 2}}) {
      for (const KvType type : kTypes) {
        for (const int32_t page : {8, 64}) {
          ExpectNearReference({.num_heads = heads.num_heads,
                               .num_kv_heads = heads.num_kv_heads,
                               .head_dim = heads.head_dim,
                               .page_positions = page,
                               .k_type = type,
                               .v_type = type,
                               .sequences = {{.context = 70, .num_rows = 2}}},
                              2, pool);
        }
      }
    }
  });
}

TEST(AttentionTest, SeveralSequencesMatchTheReference) {
  ThreadPool pool(2);
  ForEachTarget([&] {
    for (const KvType type : kTypes) {
      ExpectNearReference({.page_positions = 32,
                           .k_type = type,
                           .v_type = type,
                           .sequences = {{.context = 600, .num_rows = 5},
                                         {.context = 0, .num_rows = 1},
                                         {.context = 0, .num_rows = 20},
                                         {.context = 255, .num_rows = 1}}},
                          3, pool);
    }
  });
}

TEST(AttentionTest, EachLayerReadsItsOwnRegion) {
  ThreadPool pool(1);
  AttentionFixture fixture({.num_layers = 3, .sequences = {{.context = 40, .num_rows = 1}}}, 4,
                           pool);
  const std::vector<float> first = fixture.Run(pool, 0);
  EXPECT_EQ(fixture.Run(pool, 2), first);
  EXPECT_LT(RelativeError(fixture.Run(pool, 1), fixture.RunRef(1)), Tolerance(KvType::k4));
}

// What makes speculative decoding exact: a row decoded alone, verified among others or
// prefilled in a chunk has one result, whatever the number of threads.
TEST(AttentionTest, BitsDoNotDependOnGroupingOrThreads) {
  ThreadPool one(1);
  ThreadPool two(2);
  ThreadPool five(5);
  ForEachTarget([&] {
    for (const KvType type : kTypes) {
      AttentionFixture fixture(
          {.num_heads = 9,
           .num_kv_heads = 3,
           .page_positions = 16,
           .k_type = type,
           .v_type = type,
           .sequences = {{.context = 1000, .num_rows = 70}, {.context = 3, .num_rows = 33}}},
          5, one);
      const std::vector<float> together = fixture.Run(one);
      EXPECT_EQ(fixture.Run(two), together);
      EXPECT_EQ(fixture.Run(five), together);
      const int64_t row_floats = 9 * 64;
      for (const int32_t group : {1, 2, 5, 8, 70}) {
        for (int32_t row = 0; row < 70; row += group) {
          const int32_t count = std::min(group, 70 - row);
          const std::vector<float> part = fixture.RunRows(0, row, count, two);
          ASSERT_EQ(std::memcmp(part.data(), together.data() + row * row_floats,
                                part.size() * sizeof(float)),
                    0)
              << KvTypeName(type) << " rows " << row << " to " << row + count;
        }
      }
    }
  });
}

// Rewinding is forgetting positions, so appending over them must leave nothing of the
// old ones, and must not touch their neighbours.
TEST(AttentionTest, OverwritingRestoresTheSameBytes) {
  ThreadPool pool(2);
  ForEachTarget([&] {
    for (const KvType type : kTypes) {
      AttentionFixture fixture(
          {.k_type = type, .v_type = type, .sequences = {{.context = 90, .num_rows = 5}}}, 6, pool);
      const std::vector<uint8_t> bytes = fixture.pool_bytes();
      fixture.Append(0, 77, 90, pool, /*own=*/false);
      EXPECT_NE(fixture.pool_bytes(), bytes);
      for (int32_t p = 77; p < 90; ++p) fixture.Append(0, p, p + 1, pool);
      EXPECT_EQ(fixture.pool_bytes(), bytes);
    }
  });
}

// Softmax must not overflow or lose a row whose scores are far apart.
TEST(AttentionTest, LargeScoresStayFinite) {
  ThreadPool pool(1);
  ForEachTarget([&] {
    AttentionFixture fixture({.k_type = KvType::kF16,
                              .v_type = KvType::kF16,
                              .sequences = {{.context = 500, .num_rows = 2}}},
                             7, pool);
    for (float& value : fixture.q) value *= 300.0f;
    const std::vector<float> actual = fixture.Run(pool);
    for (const float value : actual) ASSERT_TRUE(std::isfinite(value));
    EXPECT_LT(RelativeError(actual, fixture.RunRef()), 1e-3);
  });
}

// With K of zero all weights are equal; with one V for all positions that V comes out,
// up to how it is stored.
TEST(AttentionTest, ZeroKeysGiveTheMeanValue) {
  ThreadPool pool(1);
  ForEachTarget([&] {
    for (const KvType type : kTypes) {
      AttentionFixture fixture({.num_heads = 3,
                                .num_kv_heads = 3,
                                .k_type = type,
                                .v_type = type,
                                .sequences = {{.context = 30, .num_rows = 1}}},
                               8, pool);
      const int64_t dim = 3 * 64;
      std::fill(fixture.k.begin(), fixture.k.end(), 0.0f);
      const std::vector<float> value(fixture.v.begin(), fixture.v.begin() + dim);
      for (int32_t p = 1; p < 31; ++p) std::copy_n(value.begin(), dim, &fixture.v[p * dim]);
      fixture.Append(0, 0, 31, pool);
      EXPECT_LT(RelativeError(fixture.Run(pool), value), StorageError(type)) << KvTypeName(type);
    }
  });
}

// What is not a number comes out as such in the rows that attend it, from K, V and query
// alike, and leaves the bits of the others: those of earlier rows, of the same verify too.
TEST(AttentionTest, WhatIsNotFiniteIsSeenByTheRowsThatAttendIt) {
  constexpr float kBad[] = {std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()};
  constexpr int32_t kContext = 70, kRows = 7, kRowFloats = 3 * 64, kVDim = 64;
  ThreadPool pool(2);
  ForEachTarget([&] {
    for (const KvType type : kTypes) {
      for (const int32_t position : {3, kContext, kContext + 4}) {
        for (const bool in_v : {false, true}) {
          for (const float bad : kBad) {
            AttentionFixture fixture({.num_heads = 3,
                                      .num_kv_heads = 1,
                                      .k_type = type,
                                      .v_type = type,
                                      .sequences = {{.context = kContext, .num_rows = kRows}}},
                                     10, pool);
            const std::vector<float> good = fixture.Run(pool);
            (in_v ? fixture.v : fixture.k)[position * kVDim + 40] = bad;
            fixture.Append(0, position, position + 1, pool);
            const std::vector<float> actual = fixture.Run(pool);
            for (int32_t row = 0; row < kRows; ++row) {
              const float* of_row = actual.data() + row * kRowFloats;
              if (kContext + row < position) {
                ASSERT_EQ(std::memcmp(of_row, &good[row * kRowFloats], kRowFloats * 4), 0)
                    << KvTypeName(type) << (in_v ? " V " : " K ") << bad << " row " << row;
                continue;
              }
              for (int32_t head = 0; head < 3; ++head) {
                const float* out = of_row + head * 64;
                ASSERT_TRUE(std::any_of(out, out + 64, [](float x) { return std::isnan(x); }))
                    << KvTypeName(type) << (in_v ? " V " : " K ") << bad << " row " << row;
              }
            }
          }
        }
      }
    }
  });
}

TEST(AttentionTest, AQueryThatIsNotFiniteGivesNoNumbers) {
  ThreadPool pool(1);
  ForEachTarget([&] {
    for (const KvType type : kTypes) {
      AttentionFixture fixture(
          {.k_type = type, .v_type = type, .sequences = {{.context = 70, .num_rows = 2}}}, 11,
          pool);
      fixture.q[9 * 64 + 3] = std::numeric_limits<float>::quiet_NaN();
      fixture.q[9 * 64 + 64] = std::numeric_limits<float>::infinity();
      const std::vector<float> actual = fixture.Run(pool);
      for (int32_t i = 0; i < 9 * 64; ++i) ASSERT_TRUE(std::isfinite(actual[i]));
      for (int32_t i = 9 * 64; i < 11 * 64; ++i) ASSERT_TRUE(std::isnan(actual[i]));
      for (int32_t i = 11 * 64; i < 18 * 64; ++i) ASSERT_TRUE(std::isfinite(actual[i]));
    }
  });
}

TEST(AttentionTest, LongContextMatchesTheReference) {
  ThreadPool pool(2);
  for (const KvType type : kTypes) {
    ExpectNearReference({.num_heads = 3,
                         .num_kv_heads = 1,
                         .page_positions = 64,
                         .k_type = type,
                         .v_type = type,
                         .sequences = {{.context = 8187, .num_rows = 5}}},
                        9, pool);
  }
}

}  // namespace
}  // namespace tandem::cpu
