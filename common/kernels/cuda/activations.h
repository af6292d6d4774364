// Rows of numbers between matrices, quantized to int8 in blocks of 32 columns.
#pragma once

#include <cstdint>

#include "common/kernels/cuda/device_matrix.h"

namespace tandem::cuda {

// Device memory, borrowed. Rows are counted in groups of 8: memory is there for whole
// groups. Columns beyond the matrix's, up to padded_cols, are zero.
struct Activations {
  int8_t* codes = nullptr;  // at CodeAt
  float* scales = nullptr;  // at ScaleAt
  float* sums = nullptr;    // same: scale * sum of the block's codes, for kAffine4
  int32_t padded_cols = 0;

  // What a warp reads of a group lies together: codes are [row groups][padded_cols / 64][8
  // rows][64], columns of 64 at ActivationIndex.
  constexpr int64_t CodeAt(int64_t row, int32_t col) const {
    return (row / 8 * padded_cols + col / kTileCols * kTileCols) * 8 + row % 8 * kTileCols +
           ActivationIndex(col % kTileCols);
  }
  // Of 32 columns: [row groups][padded_cols / 64][4 row pairs][2 halves of 64][2 rows].
  constexpr int64_t ScaleAt(int64_t row, int32_t block) const {
    return (row / 8 * (padded_cols / kTileCols) + block / 2) * 16 + row % 8 / 2 * 4 +
           block % 2 * 2 + row % 2;
  }
};

}  // namespace tandem::cuda
