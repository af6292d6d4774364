// Packs weights for the CUDA kernels, on the host. Plain C++, tested without a GPU.
#pragma once

#include <cstdint>

#include "common/kernels/cuda/device_matrix.h"

namespace tandem::cuda {

// Sixteen rows of a matrix as they come from a file: `codes` (kCode8: int8; else 0..15)
// of [16][padded_cols], and per 32 columns a scale and, for kAffine4, a minimum
// [16][padded_cols / 32]. For kNf4 `scales` are per 64 columns [16][padded_cols / 64] and
// already codes 0..255 of the row's offset and step.
struct TileRowsSource {
  const int8_t* codes = nullptr;
  const float* scales = nullptr;
  const float* minimums = nullptr;
};

// Writes the chunks of one row tile to `out` [padded_cols / 256 * ChunkBytes(format)].
void PackTileRows(MatrixFormat format, int64_t padded_cols, const TileRowsSource& source,
                  uint8_t* out);

// Quantizes one row to kNf4: codes [padded_cols], one scale code for 64 columns
// [padded_cols / 64] and row_scale {offset, step}. The codes are chosen against the scales
// as they come out. `weights` [num_cols]; what is padded is zero.
void QuantizeNf4Row(const float* weights, int64_t num_cols, int8_t* codes, float* scale_codes,
                    float* row_scale);

// The other direction, from absmax values that are given [padded_cols / 64]: the scale
// codes and row_scale nearest to them.
void QuantizeNf4Scales(const float* absmax, int64_t num_blocks, float* scale_codes,
                       float* row_scale);

// Quantizes one row to kCode8: codes [padded_cols], scales [padded_cols / 32] that are
// exact in f16.
void QuantizeCode8Row(const float* weights, int64_t num_cols, int8_t* codes, float* scales);

// Element (row, col) of packed chunks as a float: the reference of the kernels.
float UnpackElement(const DeviceMatrix& matrix, int64_t row, int64_t col);

uint16_t HalfBits(float value);  // rounded to nearest even
float HalfValue(uint16_t bits);

}  // namespace tandem::cuda
