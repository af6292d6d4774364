#include "common/kernels/cuda/matmul.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "common/kernels/cuda/device_test_memory.h"
#include "common/kernels/cuda/matrix_pack.h"

namespace tandem::cuda {
namespace {

// A random matrix, on both sides.
struct TestMatrix {
  TestMatrix(MatrixFormat format, int32_t rows, int32_t cols, uint32_t seed) {
    std::mt19937 random(seed);
    const int64_t padded = PaddedCols(cols);
    for (int64_t tile = 0; tile < PaddedRows(rows) / kTileRows; ++tile) {
      std::vector<int8_t> codes(16 * padded);
      std::vector<float> scales(16 * padded / 32);
      std::vector<float> minimums(scales.size());
      for (int8_t& code : codes) {
        code = static_cast<int8_t>(format == MatrixFormat::kCode8 ? random() % 255 - 127
                                                                  : random() % 16);
      }
      for (float& scale : scales) {
        scale = format == MatrixFormat::kNf4 ? static_cast<float>(random() % 256)
                                             : static_cast<float>(random() % 1000) * 1e-4f;
      }
      for (float& minimum : minimums) minimum = static_cast<float>(random() % 100) * -1e-2f;
      std::vector<uint8_t> packed(MatrixBytes(format, 16, cols));
      PackTileRows(format, padded,
                   {.codes = codes.data(), .scales = scales.data(), .minimums = minimums.data()},
                   packed.data());
      chunks.insert(chunks.end(), packed.begin(), packed.end());
    }
    for (int64_t i = 0; i < 2 * PaddedRows(rows); ++i) {
      row_scales.push_back(static_cast<float>(random() % 100) * 1e-4f);
    }
    host = {.format = format,
            .num_rows = rows,
            .num_cols = cols,
            .num_chunks = static_cast<int32_t>(padded / kChunkCols),
            .chunks = chunks.data(),
            .row_scales = row_scales.data()};
    std::copy_n(kNf4Codebook, 16, host.codebook);
    device_chunks = std::make_unique<DeviceArray<uint8_t>>(chunks);
    device_row_scales = std::make_unique<DeviceArray<float>>(row_scales);
    device = host;
    device.chunks = device_chunks->get();
    device.row_scales = device_row_scales->get();
  }

  std::vector<uint8_t> chunks;
  std::vector<float> row_scales;
  std::unique_ptr<DeviceArray<uint8_t>> device_chunks;
  std::unique_ptr<DeviceArray<float>> device_row_scales;
  DeviceMatrix host;
  DeviceMatrix device;
};

// Random quantized rows, on both sides; columns beyond `cols` are zero.
struct TestRows {
  TestRows(int32_t num_rows, int32_t cols, uint32_t seed) : rows((num_rows + 63) / 64 * 64) {
    std::mt19937 random(seed);
    padded = PaddedCols(cols);
    const int64_t blocks = padded / kScaleCols;
    values.assign(rows * padded, 0.0);
    const Activations at = {.padded_cols = static_cast<int32_t>(padded)};
    std::vector<int8_t> codes(rows * padded, 0);
    std::vector<float> scales(rows * blocks, 0.0f);
    std::vector<float> sums(rows * blocks, 0.0f);
    for (int64_t row = 0; row < num_rows; ++row) {
      for (int64_t block = 0; block * kScaleCols < cols; ++block) {
        const float scale = static_cast<float>(1 + random() % 100) * 1e-3f;
        int32_t sum = 0;
        for (int64_t col = block * kScaleCols; col < std::min<int64_t>((block + 1) * 32, cols);
             ++col) {
          const auto code = static_cast<int8_t>(random() % 255 - 127);
          codes[at.CodeAt(row, static_cast<int32_t>(col))] = code;
          values[row * padded + col] = static_cast<double>(code) * scale;
          sum += code;
        }
        const int64_t index = at.ScaleAt(row, static_cast<int32_t>(block));
        scales[index] = scale;
        sums[index] = scale * static_cast<float>(sum);
      }
    }
    device_codes = std::make_unique<DeviceArray<int8_t>>(codes);
    device_scales = std::make_unique<DeviceArray<float>>(scales);
    device_sums = std::make_unique<DeviceArray<float>>(sums);
  }
  Activations device() const {
    return {.codes = device_codes->get(),
            .scales = device_scales->get(),
            .sums = device_sums->get(),
            .padded_cols = static_cast<int32_t>(padded)};
  }

  int64_t rows;
  int64_t padded = 0;
  std::vector<double> values;
  std::unique_ptr<DeviceArray<int8_t>> device_codes;
  std::unique_ptr<DeviceArray<float>> device_scales;
  std::unique_ptr<DeviceArray<float>> device_sums;
};

std::vector<float> Product(const TestMatrix& matrix, const TestRows& x, int32_t num_rows,
                           bool many) {
  const DeviceArray<int32_t> count(std::vector<int32_t>{num_rows});
  const DeviceArray<float> out(static_cast<size_t>(num_rows) * matrix.host.num_rows);
  const MatmulCall call = {
      .input = {.weights = matrix.device, .x = x.device(), .num_rows = count.get()},
      .end = MatmulEnd::kFloat,
      .float_output = {.values = out.get(),
                       .stride = matrix.host.num_rows,
                       .num_outputs = matrix.host.num_rows}};
  EXPECT_EQ(
      many ? LaunchMatmulManyRows(call, num_rows, {}) : LaunchMatmulFewRows(call, num_rows, {}),
      cudaSuccess);
  return out.Read();
}

class MatmulTest : public testing::TestWithParam<MatrixFormat> {};

TEST_P(MatmulTest, EqualsTheSumInDouble) {
  TANDEM_NEEDS_DEVICE();
  std::mt19937 random(11);
  for (int round = 0; round < 12; ++round) {
    const auto rows = static_cast<int32_t>(1 + random() % 150);
    const auto cols = static_cast<int32_t>((1 + random() % 80) * 32);
    const auto num_rows = static_cast<int32_t>(1 + random() % 32);
    const TestMatrix matrix(GetParam(), rows, cols, round);
    const TestRows x(num_rows, cols, round + 100);
    const std::vector<float> actual = Product(matrix, x, num_rows, false);
    for (int32_t row = 0; row < num_rows; ++row) {
      for (int32_t output = 0; output < rows; ++output) {
        double sum = 0.0;
        double magnitude = 0.0;
        for (int32_t col = 0; col < cols; ++col) {
          const double term =
              UnpackElement(matrix.host, output, col) * x.values[row * x.padded + col];
          sum += term;
          magnitude += std::fabs(term);
        }
        ASSERT_NEAR(actual[row * rows + output], sum, magnitude * 1e-5 + 1e-6)
            << rows << " x " << cols << ", row " << row << " of " << num_rows;
      }
    }
  }
}

// A row's product has the same bits whatever the rows beside it and the kernel.
TEST_P(MatmulTest, BitsDoNotDependOnTheOtherRows) {
  TANDEM_NEEDS_DEVICE();
  constexpr int32_t kRows = 144;
  for (const int32_t cols : {64, 576, 1536, 4096}) {
    const TestMatrix matrix(GetParam(), kRows, cols, cols);
    const TestRows x(200, cols, cols + 1);
    const std::vector<float> all = Product(matrix, x, 200, true);
    for (const int32_t num_rows : {1, 2, 5, 8, 9, 16, 17, 32, 33, 64, 65, 130}) {
      for (const bool many : {false, true}) {
        if (!many && num_rows > kMaxFewRows) continue;
        const std::vector<float> some = Product(matrix, x, num_rows, many);
        for (size_t i = 0; i < some.size(); ++i) {
          ASSERT_EQ(some[i], all[i]) << cols << " columns, " << num_rows << " rows, " << many;
        }
      }
    }
  }
}

// The head of a vocabulary, whose last ids do not count.
TEST_P(MatmulTest, AHeadRaisesTheRanksToItsGreatest) {
  TANDEM_NEEDS_DEVICE();
  constexpr int32_t kNumIds = kManyOutputs + 5;
  const TestMatrix matrix(GetParam(), kManyOutputs + 40, 512, 3);
  const TestRows x(150, 512, 4);
  for (const auto& [num_rows, many] :
       {std::pair(1, false), {5, false}, {16, false}, {32, false}, {20, true}, {150, true}}) {
    const DeviceArray<int32_t> count(std::vector<int32_t>{num_rows});
    const DeviceArray<float> out(static_cast<size_t>(num_rows) * matrix.host.num_rows);
    const DeviceArray<RowChoice> choices(std::vector<RowChoice>(static_cast<size_t>(num_rows)));
    const MatmulCall call = {
        .input = {.weights = matrix.device, .x = x.device(), .num_rows = count.get()},
        .end = MatmulEnd::kFloat,
        .float_output = {.values = out.get(),
                         .stride = matrix.host.num_rows,
                         .num_outputs = matrix.host.num_rows,
                         .choices = choices.get(),
                         .num_ids = kNumIds}};
    ASSERT_EQ(
        many ? LaunchMatmulManyRows(call, num_rows, {}) : LaunchMatmulFewRows(call, num_rows, {}),
        cudaSuccess);
    const std::vector<float> logits = out.Read();
    const std::vector<RowChoice> found = choices.Read();
    for (int32_t row = 0; row < num_rows; ++row) {
      const float* first = logits.data() + int64_t{row} * matrix.host.num_rows;
      const auto id = static_cast<uint32_t>(std::max_element(first, first + kNumIds) - first);
      EXPECT_EQ(static_cast<uint32_t>(found[row].rank), ~id) << row << " of " << num_rows;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, MatmulTest,
                         testing::Values(MatrixFormat::kNf4, MatrixFormat::kCode4,
                                         MatrixFormat::kLinear4, MatrixFormat::kAffine4,
                                         MatrixFormat::kCode8));

}  // namespace
}  // namespace tandem::cuda
