// Rows of numbers between matrices, quantized to int8 in blocks of 32 columns.
#pragma once

#include <cstdint>

#include "common/kernels/cuda/device_matrix.h"

namespace tandem::cuda {

// Device memory, borrowed. Rows are counted in groups of 8: memory is there for whole
// groups. Columns beyond the matrix's, up to padded_cols, are zero.
struct Activations {
  int8_t* codes = nullptr;  // [rows][padded_cols], columns at ActivationIndex
  float* scales = nullptr;  // [row groups][padded_cols / 32][8 rows]
  float* sums = nullptr;    // same: scale * sum of the block's codes, for kAffine4
  int32_t padded_cols = 0;
};

}  // namespace tandem::cuda
