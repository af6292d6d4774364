#include "common/kernels/cuda/matrix_pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tandem::cuda {
namespace {

constexpr int64_t kNf4Block = 64;

// Lane g of a tile's scales: row g, then row g + 8.
int32_t RowOf(int32_t g, int32_t half) { return g + 8 * half; }

// A word of eight codes.
void PackWord4(MatrixFormat format, const int8_t* codes, uint8_t* out) {
  for (int32_t i = 0; i < 4; ++i) {
    const int32_t low = HasCodebook(format) ? codes[2 * i] : codes[i];
    const int32_t high = HasCodebook(format) ? codes[2 * i + 1] : codes[i + 4];
    const int32_t sign = format == MatrixFormat::kLinear4 ? 0x88 : 0;
    out[i] = static_cast<uint8_t>(((low & 15) | (high & 15) << 4) ^ sign);
  }
}

void PackCodes4(MatrixFormat format, const int8_t* codes, int64_t padded_cols, int64_t first_col,
                uint8_t* out) {
  for (int32_t lane = 0; lane < 32; ++lane) {
    const int32_t g = lane / 4;
    const int32_t t = lane % 4;
    for (int32_t word = 0; word < 4; ++word) {  // (half of 32 columns, row g or g + 8)
      const int64_t col = first_col + word / 2 * 32 + t * 8;
      PackWord4(format, codes + RowOf(g, word % 2) * padded_cols + col, out + lane * 16 + word * 4);
    }
  }
}

void PackCodes8(const int8_t* codes, int64_t padded_cols, int64_t first_col, uint8_t* out) {
  for (int32_t lane = 0; lane < 32; ++lane) {
    for (int32_t half = 0; half < 2; ++half) {
      for (int32_t row_half = 0; row_half < 2; ++row_half) {
        const int64_t col = first_col + half * 32 + lane % 4 * 8;
        // All lanes' first halves, then all lanes' second halves: 16 bytes a read.
        std::memcpy(out + half * 512 + lane * 16 + row_half * 8,
                    codes + RowOf(lane / 4, row_half) * padded_cols + col, 8);
      }
    }
  }
}

void StoreHalf(float value, uint8_t*& out) {
  const uint16_t bits = HalfBits(value);
  std::memcpy(out, &bits, 2);
  out += 2;
}

void PackScales(MatrixFormat format, const TileRowsSource& source, int64_t padded_cols,
                int64_t first_col, uint8_t* out) {
  for (int32_t g = 0; g < 8; ++g) {
    for (int32_t tile = 0; tile < kChunkTiles; ++tile) {
      for (int32_t row_half = 0; row_half < 2; ++row_half) {
        const int64_t row = RowOf(g, row_half);
        const int64_t col = first_col + tile * kTileCols;
        if (format == MatrixFormat::kNf4) {
          const float code = source.scales[row * (padded_cols / kNf4Block) + col / kNf4Block];
          *out++ = static_cast<uint8_t>(code);
          continue;
        }
        for (int32_t half = 0; half < 2; ++half) {
          const int64_t block = row * (padded_cols / kScaleCols) + col / kScaleCols + half;
          StoreHalf(source.scales[block], out);
          if (format == MatrixFormat::kAffine4) StoreHalf(source.minimums[block], out);
        }
      }
    }
  }
}

}  // namespace

void PackTileRows(MatrixFormat format, int64_t padded_cols, const TileRowsSource& source,
                  uint8_t* out) {
  const int32_t tile_bytes = 32 * LaneCodeBytes(format);
  for (int64_t col = 0; col < padded_cols; col += kChunkCols) {
    for (int32_t tile = 0; tile < kChunkTiles; ++tile) {
      const int64_t first_col = col + tile * kTileCols;
      if (format == MatrixFormat::kCode8) {
        PackCodes8(source.codes, padded_cols, first_col, out + tile * tile_bytes);
      } else {
        PackCodes4(format, source.codes, padded_cols, first_col, out + tile * tile_bytes);
      }
    }
    PackScales(format, source, padded_cols, col, out + ChunkCodeBytes(format));
    out += ChunkBytes(format);
  }
}

void QuantizeNf4Scales(const float* absmax, int64_t num_blocks, float* scale_codes,
                       float* row_scale) {
  float smallest = absmax[0];
  float largest = absmax[0];
  for (int64_t i = 1; i < num_blocks; ++i) {
    smallest = std::min(smallest, absmax[i]);
    largest = std::max(largest, absmax[i]);
  }
  // The codebook is in 127ths.
  row_scale[0] = smallest / 127.0f;
  row_scale[1] = (largest - smallest) / (127.0f * 255.0f);
  const float inverse = largest > smallest ? 255.0f / (largest - smallest) : 0.0f;
  for (int64_t i = 0; i < num_blocks; ++i) {
    scale_codes[i] = std::nearbyint((absmax[i] - smallest) * inverse);
  }
}

void QuantizeNf4Row(const float* weights, int64_t num_cols, int8_t* codes, float* scale_codes,
                    float* row_scale) {
  const int64_t num_blocks = PaddedCols(num_cols) / kNf4Block;
  std::fill_n(codes, PaddedCols(num_cols), int8_t{7});  // zero
  for (int64_t block = 0; block < num_blocks; ++block) {
    float absmax = 0.0f;
    const int64_t end = std::min((block + 1) * kNf4Block, num_cols);
    for (int64_t i = block * kNf4Block; i < end; ++i) {
      absmax = std::max(absmax, std::fabs(weights[i]));
    }
    scale_codes[block] = absmax;
  }
  const int64_t num_real_blocks = (num_cols + kNf4Block - 1) / kNf4Block;
  QuantizeNf4Scales(scale_codes, num_real_blocks, scale_codes, row_scale);
  for (int64_t block = 0; block < num_blocks; ++block) {
    const float scale = row_scale[0] + row_scale[1] * scale_codes[block];
    const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    const int64_t end = std::min((block + 1) * kNf4Block, num_cols);
    for (int64_t i = block * kNf4Block; i < end; ++i) {
      const float value = weights[i] * inverse;
      const int8_t* above = std::lower_bound(
          kNf4Codebook, kNf4Codebook + 16, value,
          [](int8_t entry, float wanted) { return static_cast<float>(entry) < wanted; });
      int64_t code = std::min<int64_t>(above - kNf4Codebook, 15);
      if (code > 0 && value - kNf4Codebook[code - 1] < kNf4Codebook[code] - value) --code;
      codes[i] = static_cast<int8_t>(code);
    }
  }
}

void QuantizeCode8Row(const float* weights, int64_t num_cols, int8_t* codes, float* scales) {
  const int64_t padded_cols = PaddedCols(num_cols);
  std::fill_n(codes, padded_cols, int8_t{0});
  for (int64_t block = 0; block < padded_cols / kScaleCols; ++block) {
    const int64_t first = block * kScaleCols;
    const int64_t end = std::min(first + kScaleCols, num_cols);
    float absmax = 0.0f;
    for (int64_t i = first; i < end; ++i) absmax = std::max(absmax, std::fabs(weights[i]));
    const float scale = HalfValue(HalfBits(absmax / 127.0f));
    scales[block] = scale;
    const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    for (int64_t i = first; i < end; ++i) {
      codes[i] =
          static_cast<int8_t>(std::clamp(std::nearbyint(weights[i] * inverse), -127.0f, 127.0f));
    }
  }
}

float UnpackElement(const DeviceMatrix& matrix, int64_t row, int64_t col) {
  const int64_t row_tile = row / kTileRows;
  const uint8_t* chunk =
      matrix.chunks + (row_tile * matrix.num_chunks + col / kChunkCols) * ChunkBytes(matrix.format);
  const int32_t g = row % 8;
  const int32_t row_half = row % 16 / 8;
  const int32_t tile = col % kChunkCols / kTileCols;
  const int32_t half = col % kTileCols / 32;
  const int32_t t = col % 32 / 8;
  const int32_t i = col % 8;
  const uint8_t* scales =
      chunk + ChunkCodeBytes(matrix.format) + g * GroupScaleBytes(matrix.format);
  const auto half_at = [&](int32_t index) {
    uint16_t bits;
    std::memcpy(&bits, scales + 2 * index, 2);
    return HalfValue(bits);
  };
  const int32_t block = (tile * 2 + row_half) * 2 + half;
  if (matrix.format == MatrixFormat::kCode8) {
    const uint8_t code = chunk[tile * 1024 + half * 512 + (g * 4 + t) * 16 + row_half * 8 + i];
    return static_cast<int8_t>(code) * half_at(block);
  }
  const int32_t code =
      Code4At(chunk + tile * 512 + (g * 4 + t) * 16 + (half * 2 + row_half) * 4, i, matrix.format);
  switch (matrix.format) {
    case MatrixFormat::kNf4:
      return matrix.codebook[code] * (matrix.row_scales[2 * row] +
                                      matrix.row_scales[2 * row + 1] * scales[tile * 2 + row_half]);
    case MatrixFormat::kAffine4:
      return code * half_at(2 * block) + half_at(2 * block + 1);
    case MatrixFormat::kLinear4:
      return code * half_at(block);
    default:
      return matrix.codebook[code] * half_at(block);
  }
}

uint16_t HalfBits(float value) {
  const _Float16 half = static_cast<_Float16>(value);
  uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}

float HalfValue(uint16_t bits) {
  _Float16 half;
  std::memcpy(&half, &bits, 2);
  return static_cast<float>(half);
}

}  // namespace tandem::cuda
