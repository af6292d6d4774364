// Weights as the CUDA kernels want them: tensor-core operands in the order they are read.
//
// A matrix [num_rows, num_cols] is cut into tiles of 16 rows by 64 columns. A tile is
// stored as the lanes of a warp hold it, as the 16-row operand of two int8 instructions
// of depth 32: lane 4 * g + t has rows g and g + 8, of each half of 32 columns the
// columns 8 * t .. 8 * t + 7. A chunk is four tiles side by side (256 columns) followed
// by their scales; the chunks of 16 rows follow each other:
//
//   [row tile][chunk] { codes[4 tiles][32 lanes][16 or 32 bytes], scales[8 g][...] }
//
// Codes of 4 bits are eight a word. With a codebook they are in the order of their columns, as a
// permutation takes them; else column i is the low half of byte i and column i + 4 the high one,
// so that a mask gives four int8.
//
// Rows are padded to 16 and columns to 256 with weights that are zero.
#pragma once

#include <cstdint>

#include "common/kernels/host_device.h"

namespace tandem::cuda {

inline constexpr int32_t kTileRows = 16;
inline constexpr int32_t kTileCols = 64;
inline constexpr int32_t kChunkTiles = 4;
inline constexpr int32_t kChunkCols = kTileCols * kChunkTiles;
inline constexpr int32_t kScaleCols = 32;  // columns of one activation block

// How elements are stored. i: the code of a weight.
enum class MatrixFormat : int32_t {
  // codebook[i] * (offset + step * q): q is one byte for 64 columns, offset and step are
  // floats of the row. NF4 (Dettmers et al. 2023) with its scales quantized again.
  kNf4 = 0,
  kCode4 = 1,    // codebook[i] * s, s f16 for 32 columns: IQ4_NL
  kLinear4 = 2,  // (i - 8) * s, s f16 for 32 columns: Q4_0. Stored as i - 8, of four bits.
  kAffine4 = 3,  // i * s + m, f16 for 32 columns: Q4_1, Q4_K
  kCode8 = 4,    // i * s, i int8, s f16 for 32 columns: Q8_0, Q6_K
};

constexpr bool HasCodebook(MatrixFormat format) {
  return format == MatrixFormat::kNf4 || format == MatrixFormat::kCode4;
}

// Bytes of the scales that lanes with one g share, of rows g and g + 8 in a chunk:
//   kNf4             q[4 tiles][2 rows]
//   kAffine4         f16 (s, m)[4 tiles][2 rows][2 halves]
//   others           f16 s[4 tiles][2 rows][2 halves]
constexpr int32_t GroupScaleBytes(MatrixFormat format) {
  switch (format) {
    case MatrixFormat::kNf4:
      return 8;
    case MatrixFormat::kAffine4:
      return 64;
    default:
      return 32;
  }
}
constexpr int32_t LaneCodeBytes(MatrixFormat format) {
  return format == MatrixFormat::kCode8 ? 32 : 16;  // of one tile
}
constexpr int32_t ChunkCodeBytes(MatrixFormat format) {
  return kChunkTiles * 32 * LaneCodeBytes(format);
}
constexpr int32_t ChunkBytes(MatrixFormat format) {
  return ChunkCodeBytes(format) + 8 * GroupScaleBytes(format);
}

// Bits of a weight, scales included, without padding and the two floats of a kNf4 row.
constexpr double BitsPerWeight(MatrixFormat format) {
  return ChunkBytes(format) * 8.0 / (kTileRows * kChunkCols);
}

constexpr int64_t PaddedRows(int64_t rows) {
  return (rows + kTileRows - 1) / kTileRows * kTileRows;
}
constexpr int64_t PaddedCols(int64_t cols) {
  return (cols + kChunkCols - 1) / kChunkCols * kChunkCols;
}
// Bytes of the chunks; kNf4 has another 8 for each padded row.
constexpr int64_t MatrixBytes(MatrixFormat format, int64_t rows, int64_t cols) {
  return PaddedRows(rows) / kTileRows * (PaddedCols(cols) / kChunkCols) * ChunkBytes(format);
}

// A matrix in device memory. Borrowed pointers; passed to kernels by value.
struct DeviceMatrix {
  MatrixFormat format = MatrixFormat::kCode8;
  int32_t num_rows = 0;
  int32_t num_cols = 0;
  int32_t num_chunks = 0;  // along a row
  const uint8_t* chunks = nullptr;
  const float* row_scales = nullptr;     // kNf4: [padded rows][2] offset, step
  alignas(16) int8_t codebook[16] = {};  // where the format has one
};

// NF4 and IQ4_NL as int8; weights were, or are, quantized against these very values.
inline constexpr int8_t kNf4Codebook[16] = {-127, -88, -67, -50, -36, -23, -12, 0,
                                            10,   20,  31,  43,  56,  71,  92,  127};

// A codebook as the sum of two tables, so that a permutation by four bits looks up each: one by
// codes 0..7 and one by codes 8..15. For a code of the other half the hardware repeats the sign
// of the entry that its low three bits choose: 0 or -1, which the other table makes up for.
struct SplitCodebook {
  alignas(8) int8_t below[8] = {};
  alignas(8) int8_t above[8] = {};
  bool exists = true;  // the entries fit eight bits

  constexpr explicit SplitCodebook(const int8_t (&book)[16]) {
    for (int i = 0; i < 8; ++i) {
      // The sign of above[i] is added to code i, that of below[i] to code i + 8.
      int low = book[i];
      int high = book[i + 8] + (low < 0 ? 1 : 0);
      if (high < 0) {
        low = book[i] + 1;
        high = book[i + 8] + (low < 0 ? 1 : 0);
        exists = exists && high < 0;
      }
      exists = exists && low < 128 && high < 128;
      below[i] = static_cast<int8_t>(low);
      above[i] = static_cast<int8_t>(high);
    }
  }
};
static_assert(SplitCodebook(kNf4Codebook).exists);

// The code of column `i`, 0 to 7, of a word of 4-bit codes: an index, of kLinear4 the number
// itself.
TANDEM_HOST_DEVICE inline int32_t Code4At(const uint8_t* word, int32_t i, MatrixFormat format) {
  const bool in_order = HasCodebook(format);
  const int32_t byte = word[in_order ? i / 2 : i % 4];
  const int32_t code = (in_order ? i % 2 : i / 4) == 0 ? byte & 15 : byte >> 4;
  return format == MatrixFormat::kLinear4 && code >= 8 ? code - 16 : code;
}

// Where column k of a row of activations lies within its 64: lanes read 16 bytes.
constexpr int32_t ActivationIndex(int32_t k) {
  return (k / 64) * 64 + (k % 32 / 8) * 16 + (k % 64 / 32) * 8 + k % 8;
}

}  // namespace tandem::cuda
