#include "common/model/cuda_matrix_job.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/kernels/cpu/block_decoder.h"

namespace tandem {
namespace {

using cuda::DeviceMatrix;
using cuda::MatrixFormat;

cpu::SourceType SourceOf(DType type) { return static_cast<cpu::SourceType>(type); }

// Where output row `row` of a job comes from: a tensor and a row of it.
std::pair<const GgufTensor*, int64_t> RowOf(const MatrixJob& job, int64_t row) {
  const auto count = static_cast<int64_t>(job.tensors.size());
  if (job.interleave > 0) {
    const int64_t round = row / (job.interleave * count);
    const int64_t rest = row % (job.interleave * count);
    return {job.tensors[rest / job.interleave], round * job.interleave + rest % job.interleave};
  }
  for (const GgufTensor* tensor : job.tensors) {
    const int64_t rows = tensor->num_elements() / tensor->dims[0];
    if (row < rows) return {tensor, row};
    row -= rows;
  }
  return {nullptr, 0};
}

const uint8_t* RowData(const GgufTensor& tensor, int64_t row) {
  const int64_t rows = tensor.num_elements() / tensor.dims[0];
  return tensor.data.data() + row * (static_cast<int64_t>(tensor.data.size()) / rows);
}

// The sixteen rows of a tile, on their way to PackTileRows.
struct TileRows {
  explicit TileRows(int64_t padded_cols)
      : codes(16 * padded_cols),
        scales(16 * padded_cols / 32),
        minimums(16 * padded_cols / 32),
        floats(padded_cols),
        row_scales(32) {}
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<float> minimums;
  std::vector<float> floats;
  std::vector<float> row_scales;
};

// A row that is NF4 in the file keeps its codes; its scales are quantized again.
void FillNf4Row(const MatrixJob& job, const uint8_t* data, int64_t slot, TileRows& tile) {
  const int64_t padded_cols = cuda::PaddedCols(job.num_cols);
  const int64_t num_blocks = job.num_cols / 64;
  int8_t* codes = tile.codes.data() + slot * padded_cols;
  constexpr int8_t kZero = 7;  // its place in the codebook
  std::fill(codes + job.num_cols, codes + padded_cols, kZero);
  for (int64_t block = 0; block < num_blocks; ++block) {
    const uint8_t* stored = data + block * 36;
    std::memcpy(&tile.floats[block], stored, sizeof(float));
    for (int64_t i = 0; i < 64; ++i) {
      const uint8_t pair = stored[4 + i / 2];
      codes[block * 64 + i] = static_cast<int8_t>(i % 2 == 0 ? pair >> 4 : pair & 15);
    }
  }
  cuda::QuantizeNf4Scales(tile.floats.data(), num_blocks,
                          tile.scales.data() + slot * (padded_cols / 64),
                          tile.row_scales.data() + 2 * slot);
}

void FillRow(const MatrixJob& job, int64_t row, int64_t slot, TileRows& tile) {
  const int64_t padded_cols = cuda::PaddedCols(job.num_cols);
  int8_t* codes = tile.codes.data() + slot * padded_cols;
  const auto [tensor, source_row] = RowOf(job, row);
  const uint8_t* data = RowData(*tensor, source_row);
  const cpu::SourceType type = SourceOf(tensor->dtype);
  if (tensor->dtype == DType::kNF4) return FillNf4Row(job, data, slot, tile);
  const bool is_direct = CudaFormatOf(tensor->dtype, false) == job.format &&
                         tensor->dtype != DType::kQ6_K && tensor->dtype != DType::kQ5_K &&
                         cpu::SourceBlockOf(type).elements > 1;
  float* scales =
      tile.scales.data() + slot * (padded_cols / (job.format == MatrixFormat::kNf4 ? 64 : 32));
  float* minimums = tile.minimums.data() + slot * (padded_cols / 32);
  if (is_direct) {
    for (int64_t block = 0; block < job.num_cols / 32; ++block) {
      const cpu::DecodedBlock decoded = cpu::DecodeBlock(type, data, block);
      std::memcpy(codes + block * 32, decoded.codes, 32);
      scales[block] = decoded.scale;
      minimums[block] = decoded.min;
    }
    return;
  }
  for (int64_t block = 0; block < job.num_cols / 32; ++block) {
    cpu::DequantizeBlock(type, data, block, tile.floats.data() + block * 32);
  }
  if (job.format == MatrixFormat::kNf4) {
    cuda::QuantizeNf4Row(tile.floats.data(), job.num_cols, codes, scales,
                         tile.row_scales.data() + 2 * slot);
  } else {
    cuda::QuantizeCode8Row(tile.floats.data(), job.num_cols, codes, scales);
  }
}

}  // namespace

std::vector<uint8_t> MatrixJob::Pack(cpu::ThreadPool& pool) const {
  const MatrixJob& job = *this;
  const int64_t padded_cols = cuda::PaddedCols(job.num_cols);
  const int64_t row_tiles = cuda::PaddedRows(job.num_rows) / 16;
  const int64_t tile_bytes = job.chunk_bytes() / row_tiles;
  std::vector<uint8_t> bytes(static_cast<size_t>(job.chunk_bytes() + job.row_scale_bytes()));
  pool.Run(static_cast<int32_t>(row_tiles), [&](int32_t row_tile, int32_t) {
    TileRows tile(padded_cols);
    const int64_t rows = std::min<int64_t>(16, job.num_rows - int64_t{row_tile} * 16);
    for (int64_t slot = 0; slot < rows; ++slot) {
      FillRow(job, int64_t{row_tile} * 16 + slot, slot, tile);
    }
    cuda::PackTileRows(job.format, padded_cols,
                       {.codes = tile.codes.data(),
                        .scales = tile.scales.data(),
                        .minimums = tile.minimums.data()},
                       bytes.data() + row_tile * tile_bytes);
    if (job.format == MatrixFormat::kNf4) {
      std::memcpy(bytes.data() + job.chunk_bytes() + int64_t{row_tile} * 16 * 8,
                  tile.row_scales.data(), 16 * 8);
    }
  });
  return bytes;
}

void MatrixJob::SetCodebook(DeviceMatrix& matrix) const {
  if (!cuda::HasCodebook(format)) return;
  const int8_t* book = format == MatrixFormat::kNf4 ? cuda::kNf4Codebook : cpu::kIq4NlCodebook;
  std::copy_n(book, 16, matrix.codebook);
}

}  // namespace tandem
