#include "common/kernels/cpu/matmul.h"

#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "common/kernels/cpu/block_decoder.h"
#include "common/kernels/cpu/float16.h"
#include "gtest/gtest.h"

namespace tandem::cpu {
namespace {

constexpr SourceType kTypes[] = {SourceType::kF32,   SourceType::kF16,  SourceType::kBF16,
                                 SourceType::kQ4_0,  SourceType::kQ4_1, SourceType::kQ8_0,
                                 SourceType::kQ4_K,  SourceType::kQ5_K, SourceType::kQ6_K,
                                 SourceType::kIQ4_NL};

// Random bytes of a type, with numbers where the type has scales or floats.
std::vector<uint8_t> RandomSource(SourceType type, int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> number(-1.0f, 1.0f);
  const SourceBlock block = SourceBlockOf(type);
  std::vector<uint8_t> bytes(static_cast<size_t>(rows * cols / block.elements * block.bytes));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  const auto put16 = [&](size_t at, uint16_t bits) { std::memcpy(&bytes[at], &bits, 2); };
  for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(block.bytes)) {
    const float value = number(random);
    switch (type) {
      case SourceType::kF32:
        std::memcpy(&bytes[at], &value, 4);
        break;
      case SourceType::kBF16: {
        uint32_t bits;
        std::memcpy(&bits, &value, 4);
        put16(at, static_cast<uint16_t>(bits >> 16));
        break;
      }
      case SourceType::kQ6_K:
        put16(at + 208, F16FromFloat(value / 16));
        break;
      case SourceType::kQ4_1:
      case SourceType::kQ4_K:
      case SourceType::kQ5_K:
        put16(at + 2, F16FromFloat(number(random)));
        [[fallthrough]];
      default:
        put16(at, F16FromFloat(value));
    }
    if (type == SourceType::kQ8_0) {
      for (size_t i = 0; i < 32; ++i) {
        if (bytes[at + 2 + i] == 0x80) bytes[at + 2 + i] = 0x81;  // no quantizer gives -128
      }
    }
  }
  return bytes;
}

std::vector<float> RandomFloats(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> number;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = number(random);
  return values;
}

// The one error of all kernels: largest difference over largest magnitude, at least 1 (what
// a sum of such numbers has; a lone one may cancel to nearly nothing).
double Error(const std::vector<float>& got, const std::vector<float>& want) {
  double difference = 0.0, magnitude = 1.0;
  for (size_t i = 0; i < want.size(); ++i) {
    if (!std::isfinite(got[i])) return INFINITY;
    difference = std::max(difference, std::fabs(double{got[i]} - want[i]));
    magnitude = std::max(magnitude, std::fabs(double{want[i]}));
  }
  return difference / magnitude;
}

std::vector<float> Multiply(const PackedMatrix& weight, const std::vector<float>& x, int64_t rows,
                            int32_t threads) {
  ThreadPool pool(threads);
  Activations activations(rows, weight.num_cols);
  activations.Set(x.data(), rows, weight.num_cols, pool);
  std::vector<float> y(static_cast<size_t>(rows * weight.num_rows), NAN);
  const MatMulArgs args = {.weight = &weight, .y = y.data(), .y_stride = weight.num_rows};
  MatMul(activations, &args, 1, pool);
  return y;
}

std::vector<float> MultiplyRef(const PackedMatrix& weight, const std::vector<float>& x,
                               int64_t rows) {
  ThreadPool pool(1);
  Activations activations(rows, weight.num_cols);
  activations.Set(x.data(), rows, weight.num_cols, pool);
  std::vector<float> y(static_cast<size_t>(rows * weight.num_rows), NAN);
  MatMulRef(activations, {.weight = &weight, .y = y.data(), .y_stride = weight.num_rows});
  return y;
}

// Every case runs once for each instruction set this machine has.
class MatMulTest : public testing::TestWithParam<SourceType> {
 protected:
  static void ForEachTarget(const std::function<void()>& run) {
    for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
      SCOPED_TRACE(hwy::TargetName(target));
      hwy::SetSupportedTargetsForTest(target);
      run();
    }
    hwy::SetSupportedTargetsForTest(0);
  }
};

// Float sums of some hundred terms in another order differ by a few units in the last
// place of the largest.
constexpr double kTolerance = 2e-6;

TEST_P(MatMulTest, EqualsTheReferenceForSmallShapes) {
  ForEachTarget([&] {
    for (const int64_t cols : {32, 64, 96, 256}) {
      if (!CanPack(GetParam(), cols)) continue;
      for (const int64_t outputs : {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40}) {
        const auto source = RandomSource(GetParam(), outputs, cols, 1);
        const PackedMatrix weight = PackMatrix(GetParam(), source.data(), outputs, cols);
        for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 20}) {
          const auto x = RandomFloats(rows * cols, 2);
          EXPECT_LT(Error(Multiply(weight, x, rows, 1), MultiplyRef(weight, x, rows)), kTolerance)
              << outputs << " x " << cols << ", rows " << rows;
        }
      }
    }
  });
}

TEST_P(MatMulTest, EqualsTheReferenceForALargeShape) {
  const int64_t cols = 1536, outputs = 203, rows = 37;
  const auto source = RandomSource(GetParam(), outputs, cols, 3);
  const PackedMatrix weight = PackMatrix(GetParam(), source.data(), outputs, cols);
  const auto x = RandomFloats(rows * cols, 4);
  const auto want = MultiplyRef(weight, x, rows);
  ForEachTarget([&] { EXPECT_LT(Error(Multiply(weight, x, rows, 2), want), kTolerance); });
}

// The promise that speculation stands on: how many rows are computed together, and by how
// many threads, changes no bit.
TEST_P(MatMulTest, ARowHasTheSameBitsInEveryBatch) {
  const int64_t cols = 512, outputs = 150, rows = 70;  // 70 rows are cut otherwise than 30
  const auto source = RandomSource(GetParam(), outputs, cols, 5);
  const PackedMatrix weight = PackMatrix(GetParam(), source.data(), outputs, cols);
  const auto x = RandomFloats(rows * cols, 6);
  ForEachTarget([&] {
    const auto all = Multiply(weight, x, rows, 2);
    for (int64_t first = 0; first < rows; first += first < 17 ? 1 : 13) {
      for (const int64_t count : {1, 2, 5, 8, 11, 33, 65}) {
        if (first + count > rows) continue;
        const std::vector<float> some(x.begin() + first * cols, x.begin() + (first + count) * cols);
        const auto y = Multiply(weight, some, count, 1 + static_cast<int32_t>(first % 3));
        ASSERT_EQ(std::memcmp(y.data(), &all[first * outputs], y.size() * sizeof(float)), 0)
            << "rows " << first << " to " << first + count;
      }
    }
  });
}

TEST_P(MatMulTest, PackingKeepsWhatItSaysItKeeps) {
  const int64_t cols = 512, rows = 21;
  const auto source = RandomSource(GetParam(), rows, cols, 7);
  const PackedMatrix packed = PackMatrix(GetParam(), source.data(), rows, cols);
  std::vector<float> want(static_cast<size_t>(rows * cols)), got(want.size());
  Dequantize(GetParam(), source.data(), rows * cols, want.data());
  for (int64_t row = 0; row < rows; ++row) UnpackRow(packed, row, &got[row * cols]);
  if (packed.lossless) {
    EXPECT_EQ(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)), 0);
  } else {
    EXPECT_LT(Error(got, want), 0.005);  // 8 bits: half a step of 1/127 of a block's largest
  }
  EXPECT_EQ(packed.num_bytes, PackedBytes(packed.format, rows, cols));
}

INSTANTIATE_TEST_SUITE_P(Types, MatMulTest, testing::ValuesIn(kTypes),
                         [](const testing::TestParamInfo<SourceType>& info) {
                           return "Type" + std::to_string(static_cast<int>(info.param));
                         });

TEST(MatMulArgsTest, SeveralMatricesShareOneLoopAndAccumulate) {
  const int64_t cols = 64, rows = 3;
  const auto source = RandomSource(SourceType::kQ4_1, 48, cols, 8);
  const PackedMatrix a = PackMatrix(SourceType::kQ4_1, source.data(), 48, cols);
  const PackedMatrix b = PackMatrix(SourceType::kQ4_1, source.data(), 20, cols);
  const auto x = RandomFloats(rows * cols, 9);
  ThreadPool pool(2);
  Activations activations(rows, cols);
  activations.Set(x.data(), rows, cols, pool);
  std::vector<float> y(rows * 100, 1.0f);  // a at column 0, b at column 50
  const MatMulArgs args[] = {
      {.weight = &a, .y = y.data(), .y_stride = 100},
      {.weight = &b, .y = y.data() + 50, .y_stride = 100, .accumulate = true}};
  MatMul(activations, args, 2, pool);
  const auto want = MultiplyRef(a, x, rows);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < 48; ++i) EXPECT_NEAR(y[r * 100 + i], want[r * 48 + i], 1e-4);
    for (int64_t i = 0; i < 20; ++i) EXPECT_NEAR(y[r * 100 + 50 + i], 1 + want[r * 48 + i], 1e-4);
    EXPECT_EQ(y[r * 100 + 48], 1.0f);
    EXPECT_EQ(y[r * 100 + 70], 1.0f);
  }
}

TEST(ActivationsTest, WhatIsNotFiniteStaysNotFinite) {
  const auto source = RandomSource(SourceType::kQ8_0, 16, 64, 10);
  const PackedMatrix weight = PackMatrix(SourceType::kQ8_0, source.data(), 16, 64);
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    auto x = RandomFloats(64, 11);
    x[40] = bad;
    for (const float y : Multiply(weight, x, 1, 1)) EXPECT_FALSE(std::isfinite(y));
  }
}

TEST(ActivationsTest, CodesAreTheNearest) {
  auto x = RandomFloats(64, 12);
  std::fill(x.begin() + 32, x.end(), 0.0f);
  ThreadPool pool(1);
  Activations activations(1, 64);
  activations.Set(x.data(), 1, 64, pool);
  const ActivationBlock& block = activations.block(0, 0);
  int32_t sum = 0;
  for (int i = 0; i < 32; ++i) {
    EXPECT_NEAR(block.scale * block.codes[i], x[i], block.scale * 0.5001);
    sum += block.codes[i];
  }
  EXPECT_EQ(block.scaled_sum, block.scale * static_cast<float>(sum));
  EXPECT_EQ(block.minus_8_sums, -8 * sum);
  EXPECT_EQ(block.minus_128_sums, -128 * sum);
  EXPECT_EQ(activations.block(0, 1).scale, 0.0f);
  EXPECT_EQ(activations.block(0, 1).minus_8_sums, 0);
}

TEST(Float16Test, RoundTripsEveryNumberAndRoundsTiesToEven) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = FloatFromF16(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    EXPECT_EQ(F16FromFloat(value), bits);
  }
  EXPECT_EQ(F16FromFloat(1.0f + 0x1p-11f), F16FromFloat(1.0f));          // tie, to even
  EXPECT_EQ(F16FromFloat(1.0f + 3 * 0x1p-11f), F16FromFloat(1.0f) + 2);  // tie, to even
  EXPECT_EQ(F16FromFloat(65520.0f), 0x7c00);
  EXPECT_EQ(F16FromFloat(-0x1p-25f), 0x8000);
}

}  // namespace
}  // namespace tandem::cpu
