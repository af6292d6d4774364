#include "common/kernels/cuda/matrix_pack.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace tandem::cuda {
namespace {

constexpr int64_t kRows = 16;
constexpr int64_t kCols = 300;  // not whole chunks
constexpr int64_t kPadded = PaddedCols(kCols);

std::vector<float> RandomRow(std::mt19937& random) {
  std::normal_distribution<float> normal(0.0f, 0.05f);
  std::vector<float> row(kCols);
  for (float& value : row) value = normal(random);
  return row;
}

class PackTest : public testing::TestWithParam<MatrixFormat> {};

// Every element comes back from where the kernels look for it.
TEST_P(PackTest, UnpacksWhatWasPacked) {
  const MatrixFormat format = GetParam();
  std::mt19937 random(7);
  std::vector<int8_t> codes(kRows * kPadded);
  std::vector<float> scales(kRows * kPadded / 32);
  std::vector<float> minimums(scales.size());
  for (int8_t& code : codes) {
    code = static_cast<int8_t>(random() % 16 - (format == MatrixFormat::kCode8 ? 100 : 0));
  }
  for (float& scale : scales) scale = static_cast<float>(1 + random() % 200);
  for (float& minimum : minimums) minimum = static_cast<float>(random() % 64);
  std::vector<uint8_t> chunks(MatrixBytes(format, kRows, kCols));
  PackTileRows(format, kPadded,
               {.codes = codes.data(), .scales = scales.data(), .minimums = minimums.data()},
               chunks.data());
  std::vector<float> row_scales(2 * kRows);
  for (float& scale : row_scales) scale = static_cast<float>(random() % 8);
  DeviceMatrix matrix = {.format = format,
                         .num_rows = kRows,
                         .num_cols = kCols,
                         .num_chunks = kPadded / kChunkCols,
                         .chunks = chunks.data(),
                         .row_scales = row_scales.data()};
  for (int i = 0; i < 16; ++i) matrix.codebook[i] = static_cast<int8_t>(3 * i - 20);
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t col = 0; col < kPadded; ++col) {
      const int8_t code = codes[row * kPadded + col];
      const float scale = scales[row * (kPadded / 32) + col / 32];
      float expected = 0.0f;
      switch (format) {
        case MatrixFormat::kNf4:
          expected = matrix.codebook[code] *
                     (row_scales[2 * row] +
                      row_scales[2 * row + 1] * scales[row * (kPadded / 64) + col / 64]);
          break;
        case MatrixFormat::kCode4:
          expected = matrix.codebook[code] * scale;
          break;
        case MatrixFormat::kLinear4:
          expected = (code - 8) * scale;
          break;
        case MatrixFormat::kAffine4:
          expected = code * scale + minimums[row * (kPadded / 32) + col / 32];
          break;
        case MatrixFormat::kCode8:
          expected = code * scale;
          break;
      }
      ASSERT_EQ(UnpackElement(matrix, row, col), expected) << row << ", " << col;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, PackTest,
                         testing::Values(MatrixFormat::kNf4, MatrixFormat::kCode4,
                                         MatrixFormat::kLinear4, MatrixFormat::kAffine4,
                                         MatrixFormat::kCode8));

TEST(QuantizeNf4RowTest, ErrsNoMoreThanTheCodebookMust) {
  std::mt19937 random(3);
  const std::vector<float> row = RandomRow(random);
  std::vector<int8_t> codes(kPadded);
  std::vector<float> scale_codes(kPadded / 64);
  float row_scale[2];
  QuantizeNf4Row(row.data(), kCols, codes.data(), scale_codes.data(), row_scale);
  double error = 0.0;
  double power = 0.0;
  for (int64_t i = 0; i < kCols; ++i) {
    const float scale = row_scale[0] + row_scale[1] * scale_codes[i / 64];
    const double difference = row[i] - kNf4Codebook[codes[i]] * scale;
    error += difference * difference;
    power += row[i] * row[i];
  }
  EXPECT_LT(std::sqrt(error / power), 0.095);  // NF4 on a normal distribution: about 0.09
  for (int64_t i = kCols; i < kPadded; ++i) EXPECT_EQ(kNf4Codebook[codes[i]], 0);
}

TEST(QuantizeNf4RowTest, ARowOfZerosStaysZero) {
  const std::vector<float> row(kCols, 0.0f);
  std::vector<int8_t> codes(kPadded);
  std::vector<float> scale_codes(kPadded / 64);
  float row_scale[2];
  QuantizeNf4Row(row.data(), kCols, codes.data(), scale_codes.data(), row_scale);
  EXPECT_EQ(row_scale[0], 0.0f);
  EXPECT_EQ(row_scale[1], 0.0f);
}

TEST(QuantizeCode8RowTest, IsWithinHalfAStep) {
  std::mt19937 random(5);
  const std::vector<float> row = RandomRow(random);
  std::vector<int8_t> codes(kPadded);
  std::vector<float> scales(kPadded / 32);
  QuantizeCode8Row(row.data(), kCols, codes.data(), scales.data());
  for (int64_t i = 0; i < kCols; ++i) {
    EXPECT_NEAR(codes[i] * scales[i / 32], row[i], scales[i / 32] * 0.56f) << i;
  }
}

TEST(ActivationIndexTest, IsAPermutationOfEach64) {
  std::vector<bool> seen(128, false);
  for (int32_t k = 0; k < 128; ++k) {
    const int32_t index = ActivationIndex(k);
    EXPECT_EQ(index / 64, k / 64);
    EXPECT_FALSE(seen[index]);
    seen[index] = true;
  }
}

}  // namespace
}  // namespace tandem::cuda
