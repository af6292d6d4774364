#include "common/kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

#include "common/kernels/cpu/block_decoder.h"
#include "common/kernels/cpu/float16.h"
#include "common/kernels/cpu/packed_layout.h"

namespace tandem::cpu {
namespace {

void Store16(uint16_t bits, uint8_t* to) { std::memcpy(to, &bits, sizeof(bits)); }

float LoadF16(const uint8_t* from) {
  uint16_t bits;
  std::memcpy(&bits, from, sizeof(bits));
  return FloatFromF16(bits);
}

// Rounds 32 weights to 8 bits with one scale.
DecodedBlock QuantizeToQ8(const float* weights) {
  float largest = 0.0f;
  for (int i = 0; i < kBlock; ++i) largest = std::max(largest, std::fabs(weights[i]));
  DecodedBlock block;
  block.scale = FloatFromF16(F16FromFloat(largest / 127.0f));
  for (int i = 0; i < kBlock; ++i) {
    const float code = block.scale > 0.0f ? std::nearbyint(weights[i] / block.scale) : 0.0f;
    block.codes[i] = static_cast<int8_t>(std::clamp(code, -127.0f, 127.0f));
  }
  return block;
}

DecodedBlock LoadBlock(SourceType type, const uint8_t* row, int64_t block) {
  const bool is_whole = type != SourceType::kQ5_K && type != SourceType::kQ6_K &&
                        type != SourceType::kNF4;  // has a packed format of its own
  if (is_whole) return DecodeBlock(type, row, block);
  float weights[kBlock];
  DequantizeBlock(type, row, block, weights);
  return QuantizeToQ8(weights);
}

// Writes one row's part of a record (packed_layout.h).
void StoreBlock(PackedFormat format, const DecodedBlock& block, int64_t row_in_group,
                uint8_t* record) {
  for (int i = 0; i < kBlock; ++i) {
    if (format == PackedFormat::kQ8) {
      record[i / 4 * 64 + row_in_group * 4 + i % 4] = static_cast<uint8_t>(block.codes[i]);
    } else {
      uint8_t& byte = record[i / 8 * 64 + row_in_group * 4 + i % 4];
      const int shift = i % 8 < 4 ? 0 : 4;
      byte = static_cast<uint8_t>((byte & (0xf0 >> shift)) | block.codes[i] << shift);
    }
  }
  uint8_t* scales = record + CodeBytes(format);
  Store16(F16FromFloat(block.scale), scales + row_in_group * 2);
  if (format == PackedFormat::kQ4Affine) {
    Store16(F16FromFloat(block.min), scales + 32 + row_in_group * 2);
  }
}

DecodedBlock LoadPackedBlock(PackedFormat format, const uint8_t* record, int64_t row_in_group) {
  DecodedBlock block;
  for (int i = 0; i < kBlock; ++i) {
    if (format == PackedFormat::kQ8) {
      block.codes[i] = static_cast<int8_t>(record[i / 4 * 64 + row_in_group * 4 + i % 4]);
    } else {
      const int code = (record[i / 8 * 64 + row_in_group * 4 + i % 4] >> (i % 8 < 4 ? 0 : 4)) & 15;
      block.codes[i] =
          static_cast<int8_t>(format == PackedFormat::kQ4Symmetric  ? code - 8
                              : format == PackedFormat::kQ4Codebook ? kIq4NlCodebook[code]
                                                                    : code);
    }
  }
  const uint8_t* scales = record + CodeBytes(format);
  block.scale = LoadF16(scales + row_in_group * 2);
  if (format == PackedFormat::kQ4Affine) block.min = LoadF16(scales + 32 + row_in_group * 2);
  return block;
}

}  // namespace

bool CanPack(SourceType type, int64_t num_cols) {
  const SourceBlock block = SourceBlockOf(type);
  return block.elements > 0 && num_cols > 0 && num_cols % block.elements == 0;
}

PackedFormat PackedFormatOf(SourceType type) {
  switch (type) {
    case SourceType::kQ4_0:
      return PackedFormat::kQ4Symmetric;
    case SourceType::kQ4_1:
    case SourceType::kQ4_K:
      return PackedFormat::kQ4Affine;
    case SourceType::kIQ4_NL:
      return PackedFormat::kQ4Codebook;
    case SourceType::kQ8_0:
    case SourceType::kQ5_K:
    case SourceType::kQ6_K:
    case SourceType::kNF4:
      return PackedFormat::kQ8;
    case SourceType::kF16:
      return PackedFormat::kF16;
    case SourceType::kBF16:
      return PackedFormat::kBF16;
    case SourceType::kF32:
      break;
  }
  return PackedFormat::kF32;
}

size_t PackedBytes(PackedFormat format, int64_t num_rows, int64_t num_cols) {
  return static_cast<size_t>(NumGroups(num_rows) * GroupBytes(format, num_cols));
}

PackedMatrix PackMatrix(SourceType type, const uint8_t* source, int64_t num_rows,
                        int64_t num_cols) {
  const SourceBlock stored = SourceBlockOf(type);
  const int64_t row_bytes = num_cols / stored.elements * stored.bytes;
  PackedMatrix matrix;
  matrix.format = PackedFormatOf(type);
  matrix.num_rows = num_rows;
  matrix.num_cols = num_cols;
  matrix.lossless =
      type != SourceType::kQ4_K && type != SourceType::kQ5_K && type != SourceType::kQ6_K &&
      type != SourceType::kNF4;
  matrix.num_bytes = PackedBytes(matrix.format, num_rows, num_cols);
  const size_t allocated = (matrix.num_bytes + 63) / 64 * 64;
  matrix.data = {static_cast<uint8_t*>(::operator new[](allocated, std::align_val_t{64})),
                 [](uint8_t* data) { ::operator delete[](data, std::align_val_t{64}); }};
  std::memset(matrix.data.get(), 0, allocated);
  const int64_t group_bytes = GroupBytes(matrix.format, num_cols);
  for (int64_t row = 0; row < num_rows; ++row) {
    const uint8_t* from = source + row * row_bytes;
    uint8_t* group = matrix.data.get() + row / kGroupRows * group_bytes;
    const int64_t lane = row % kGroupRows;
    if (IsQuantized(matrix.format)) {
      for (int64_t block = 0; block < num_cols / kBlock; ++block) {
        StoreBlock(matrix.format, LoadBlock(type, from, block), lane,
                   group + block * RecordBytes(matrix.format));
      }
    } else {
      const int64_t bytes = ElementBytes(matrix.format);
      for (int64_t col = 0; col < num_cols; ++col) {
        std::memcpy(group + (col * kGroupRows + lane) * bytes, from + col * bytes,
                    static_cast<size_t>(bytes));
      }
    }
  }
  return matrix;
}

void UnpackRow(const PackedMatrix& matrix, int64_t row, float* out) {
  const uint8_t* group =
      matrix.data.get() + row / kGroupRows * GroupBytes(matrix.format, matrix.num_cols);
  const int64_t lane = row % kGroupRows;
  if (IsQuantized(matrix.format)) {
    for (int64_t b = 0; b < matrix.num_cols / kBlock; ++b) {
      const DecodedBlock block =
          LoadPackedBlock(matrix.format, group + b * RecordBytes(matrix.format), lane);
      for (int i = 0; i < kBlock; ++i) {
        out[b * kBlock + i] = block.scale * static_cast<float>(block.codes[i]) + block.min;
      }
    }
    return;
  }
  for (int64_t col = 0; col < matrix.num_cols; ++col) {
    const uint8_t* element = group + (col * kGroupRows + lane) * ElementBytes(matrix.format);
    if (matrix.format == PackedFormat::kF32) {
      std::memcpy(&out[col], element, sizeof(float));
    } else {
      uint16_t bits;
      std::memcpy(&bits, element, sizeof(bits));
      out[col] = matrix.format == PackedFormat::kF16 ? FloatFromF16(bits) : FloatFromBF16(bits);
    }
  }
}

void Dequantize(SourceType type, const uint8_t* source, int64_t num_elements, float* out) {
  const int64_t num_blocks = num_elements / kBlock;
  for (int64_t block = 0; block < num_blocks; ++block) {
    DequantizeBlock(type, source, block, out + block * kBlock);
  }
  // Only single floats have a rest: take them from a block that is padded.
  const int64_t rest = num_elements - num_blocks * kBlock;
  if (rest > 0) {
    const int64_t bytes = SourceBlockOf(type).bytes;
    uint8_t padded[kBlock * 4] = {};
    float values[kBlock];
    std::memcpy(padded, source + num_blocks * kBlock * bytes, static_cast<size_t>(rest * bytes));
    DequantizeBlock(type, padded, 0, values);
    std::copy(values, values + rest, out + num_blocks * kBlock);
  }
}

}  // namespace tandem::cpu
