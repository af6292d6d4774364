// Where things are in a PackedMatrix. Internal to the matrix kernels.
//
// Quantized: for each group of 16 rows, for each block of 32 columns, one record:
//
//   codes   4-bit: 4 vectors of 64 bytes; byte 4 r + j of vector q holds the codes of row
//           r, columns 8 q + j (low half) and 8 q + 4 + j (high half), j in [0, 4)
//           8-bit: 8 vectors of 64 bytes; byte 4 r + j of vector q is column 4 q + j
//   scales  f16[16], one a row
//   mins    f16[16], kQ4Affine only
//
// so that one lane of 32 bits is one row's four neighbouring inputs: what a dot-product
// instruction multiplies with four activations held in every lane.
//
// Floats: for each group, for each column, 16 elements.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/kernels/cpu/packed_matrix.h"

namespace tandem::cpu {

inline constexpr int64_t kGroupRows = 16;

inline constexpr bool IsQuantized(PackedFormat format) { return format <= PackedFormat::kQ8; }

inline constexpr int64_t CodeBytes(PackedFormat format) {
  return format == PackedFormat::kQ8 ? 512 : 256;
}

// Bytes of one record: a group's block of 32 columns.
inline constexpr int64_t RecordBytes(PackedFormat format) {
  return CodeBytes(format) + 32 + (format == PackedFormat::kQ4Affine ? 32 : 0);
}

inline constexpr int64_t ElementBytes(PackedFormat format) {
  return format == PackedFormat::kF32 ? 4 : 2;
}

inline constexpr int64_t NumGroups(int64_t num_rows) {
  return (num_rows + kGroupRows - 1) / kGroupRows;
}

// Bytes of one group of rows.
inline constexpr int64_t GroupBytes(PackedFormat format, int64_t num_cols) {
  return IsQuantized(format) ? num_cols / 32 * RecordBytes(format)
                             : num_cols * kGroupRows * ElementBytes(format);
}

}  // namespace tandem::cpu
