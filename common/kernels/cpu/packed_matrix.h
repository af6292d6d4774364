// Weights as the CPU kernels want them: rows interleaved, quantized in blocks of 32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace tandem::cpu {

// How a packed matrix stores its elements. With i a weight's code, s and m the
// numbers of its block of 32 along a row (f16 each):
enum class PackedFormat : int32_t {
  kQ4Symmetric,  // s * (i - 8), i in [0, 15]; from Q4_0; 4.5 bits
  kQ4Affine,     // s * i + m, i in [0, 15]; from Q4_1, Q4_K; 5 bits
  kQ4Codebook,   // s * codebook[i], codebook int8[16]; from IQ4_NL (and NF4); 4.5 bits
  kQ8,           // s * i, i in [-127, 127]; from Q8_0, Q6_K, Q5_K; 8.5 bits
  kF16,
  kBF16,
  kF32,
};

// The types a matrix can be packed from; values equal GGUF's (tandem::DType).
// The kernels include no other folder, hence the copy; a test holds them together.
enum class SourceType : int32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kBF16 = 30,
  kNF4 = 1000,  // packed as kQ8
};

// A matrix [num_rows, num_cols]: num_rows outputs, num_cols inputs. Rows are kept in
// groups of 16 whose blocks lie side by side, so that one vector holds the same
// inputs of many outputs. The last group is padded with zero rows.
// Movable, immutable after packing, read by any number of threads.
struct PackedMatrix {
  PackedFormat format = PackedFormat::kF32;
  int64_t num_rows = 0;
  int64_t num_cols = 0;
  bool lossless = true;  // false when packing rounded (Q4_K scales, Q5_K, Q6_K)
  size_t num_bytes = 0;  // of `data`
  std::unique_ptr<uint8_t[], void (*)(uint8_t*)> data{nullptr, nullptr};  // 64-byte aligned
};

// True when PackMatrix takes this type with this many columns (whole blocks of 32,
// for the K types of 256; any number for F32, F16, BF16).
bool CanPack(SourceType type, int64_t num_cols);

// The format that `type` is packed to, and the bytes a matrix takes packed.
PackedFormat PackedFormatOf(SourceType type);
size_t PackedBytes(PackedFormat format, int64_t num_rows, int64_t num_cols);

// Packs `num_rows` rows of `type` stored one after the other at `source` (GGUF
// layout). Requires CanPack. Single-threaded; call for several matrices at once.
PackedMatrix PackMatrix(SourceType type, const uint8_t* source, int64_t num_rows, int64_t num_cols);

// Writes row `row` as floats to out [num_cols]: the embedding look-up.
void UnpackRow(const PackedMatrix& matrix, int64_t row, float* out);

// Writes `num_elements` elements of GGUF data as floats: the reference for packing,
// and the way to norm weights. `num_elements` in whole blocks.
void Dequantize(SourceType type, const uint8_t* source, int64_t num_elements, float* out);

}  // namespace tandem::cpu
