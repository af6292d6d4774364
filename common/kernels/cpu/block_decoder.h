// The blocks of GGUF's quantized types, taken apart.
#pragma once

#include <cstdint>

#include "common/kernels/cpu/packed_matrix.h"

namespace tandem::cpu {

inline constexpr int32_t kBlock = 32;  // weights that share a scale, along a row

// The codebook of IQ4_NL.
inline constexpr int8_t kIq4NlCodebook[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                              1,    13,   25,  38,  53,  69,  89,  113};

// The codebook of NF4, Dettmers et al. 2023, appendix E, as the bitsandbytes library has it.
inline constexpr float kNf4Values[16] = {
    -1.0f,           -0.69619280f, -0.52507305f, -0.39491749f, -0.28444138f, -0.18477343f,
    -0.09105003f,    0.0f,         0.07958030f,  0.16093020f,  0.24611230f,  0.33791524f,
    0.44070983f,     0.56261700f,  0.72295684f,  1.0f};

// 32 consecutive weights: scale * code + min.
struct DecodedBlock {
  int8_t codes[kBlock];  // Q4 types: 0..15 unshifted; IQ4_NL: 0..15, an index
  float scale = 0.0f;
  float min = 0.0f;
};

// How many elements and bytes a storage block of `type` has; 1 element for floats.
struct SourceBlock {
  int32_t elements;
  int32_t bytes;
};
SourceBlock SourceBlockOf(SourceType type);

// Takes apart the 32 weights that start at element 32 * `index` of the row at `source`.
// For Q4_0, Q4_1, Q4_K, IQ4_NL and Q8_0.
DecodedBlock DecodeBlock(SourceType type, const uint8_t* source, int64_t index);

// Writes those 32 weights as floats; any type.
void DequantizeBlock(SourceType type, const uint8_t* source, int64_t index, float* out);

}  // namespace tandem::cpu
