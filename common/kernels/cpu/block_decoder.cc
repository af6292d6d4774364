#include "common/kernels/cpu/block_decoder.h"

#include <cstring>

#include "common/kernels/cpu/float16.h"

namespace tandem::cpu {
namespace {

uint16_t Load16(const uint8_t* from) {
  uint16_t bits;
  std::memcpy(&bits, from, sizeof(bits));
  return bits;
}

float LoadF16(const uint8_t* from) { return FloatFromF16(Load16(from)); }

// 16 bytes hold weights 0..15 in their low halves and 16..31 in their high ones.
void DecodeNibbles(const uint8_t* from, int8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = static_cast<int8_t>(from[i] & 15);
    codes[i + 16] = static_cast<int8_t>(from[i] >> 4);
  }
}

// The 6-bit scale and min of sub-block `i` of 8: 12 bytes hold 8 pairs (Q4_K, Q5_K).
void KScaleMin(const uint8_t* packed, int i, int* scale, int* min) {
  if (i < 4) {
    *scale = packed[i] & 63;
    *min = packed[i + 4] & 63;
  } else {
    *scale = (packed[i + 4] & 15) | ((packed[i - 4] >> 6) << 4);
    *min = (packed[i + 4] >> 4) | ((packed[i] >> 6) << 4);
  }
}

// Q4_K: f16 d, f16 dmin, 12 bytes of scales, 128 bytes of codes; 64 weights a 32 bytes.
DecodedBlock DecodeQ4K(const uint8_t* block, int sub_block) {
  DecodedBlock decoded;
  int scale, min;
  KScaleMin(block + 4, sub_block, &scale, &min);
  decoded.scale = LoadF16(block) * static_cast<float>(scale);
  decoded.min = -LoadF16(block + 2) * static_cast<float>(min);
  const uint8_t* codes = block + 16 + sub_block / 2 * 32;
  for (int i = 0; i < kBlock; ++i) {
    decoded.codes[i] = static_cast<int8_t>(sub_block % 2 == 0 ? codes[i] & 15 : codes[i] >> 4);
  }
  return decoded;
}

// Q5_K: as Q4_K, with 32 bytes of fifth bits before the codes.
void DequantizeQ5K(const uint8_t* block, int sub_block, float* out) {
  int scale, min;
  KScaleMin(block + 4, sub_block, &scale, &min);
  const float d = LoadF16(block) * static_cast<float>(scale);
  const float m = LoadF16(block + 2) * static_cast<float>(min);
  const uint8_t* fifth = block + 16;
  const uint8_t* codes = block + 48 + sub_block / 2 * 32;
  for (int i = 0; i < kBlock; ++i) {
    const int low = sub_block % 2 == 0 ? codes[i] & 15 : codes[i] >> 4;
    out[i] = d * static_cast<float>(low + 16 * ((fifth[i] >> sub_block) & 1)) - m;
  }
}

// Q6_K: 128 bytes of low halves, 64 of high pairs, 16 scales of 16 weights, f16 d. Two
// halves of 128 weights, each four runs of 32.
void DequantizeQ6K(const uint8_t* block, int sub_block, float* out) {
  const int half = sub_block / 4;
  const int run = sub_block % 4;
  const uint8_t* low = block + half * 64 + run % 2 * 32;
  const uint8_t* high = block + 128 + half * 32;
  const auto* scales = reinterpret_cast<const int8_t*>(block + 192 + half * 8 + run * 2);
  const float d = LoadF16(block + 208);
  for (int i = 0; i < kBlock; ++i) {
    const int bits = (run < 2 ? low[i] & 15 : low[i] >> 4) | ((high[i] >> (2 * run)) & 3) << 4;
    out[i] = d * static_cast<float>(scales[i / 16]) * static_cast<float>(bits - 32);
  }
}

// NF4: f32 absmax, 32 bytes of codes, the earlier weight in the high half.
void DequantizeNf4(const uint8_t* block, int sub_block, float* out) {
  float absmax;
  std::memcpy(&absmax, block, sizeof(absmax));
  const uint8_t* codes = block + 4 + sub_block * kBlock / 2;
  for (int i = 0; i < kBlock; ++i) {
    out[i] = absmax * kNf4Values[i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15];
  }
}

}  // namespace

SourceBlock SourceBlockOf(SourceType type) {
  switch (type) {
    case SourceType::kF32:
      return {1, 4};
    case SourceType::kF16:
    case SourceType::kBF16:
      return {1, 2};
    case SourceType::kQ4_0:
    case SourceType::kIQ4_NL:
      return {32, 18};
    case SourceType::kQ4_1:
      return {32, 20};
    case SourceType::kQ8_0:
      return {32, 34};
    case SourceType::kQ4_K:
      return {256, 144};
    case SourceType::kQ5_K:
      return {256, 176};
    case SourceType::kQ6_K:
      return {256, 210};
    case SourceType::kNF4:
      return {64, 36};
  }
  return {0, 0};
}

DecodedBlock DecodeBlock(SourceType type, const uint8_t* source, int64_t index) {
  const SourceBlock stored = SourceBlockOf(type);
  const int64_t per_stored = stored.elements / kBlock;
  const uint8_t* block = source + index / per_stored * stored.bytes;
  DecodedBlock decoded;
  switch (type) {
    case SourceType::kQ4_0:
    case SourceType::kIQ4_NL:
      decoded.scale = LoadF16(block);
      DecodeNibbles(block + 2, decoded.codes);
      return decoded;
    case SourceType::kQ4_1:
      decoded.scale = LoadF16(block);
      decoded.min = LoadF16(block + 2);
      DecodeNibbles(block + 4, decoded.codes);
      return decoded;
    case SourceType::kQ4_K:
      return DecodeQ4K(block, static_cast<int>(index % per_stored));
    default:  // kQ8_0
      decoded.scale = LoadF16(block);
      std::memcpy(decoded.codes, block + 2, kBlock);
      return decoded;
  }
}

void DequantizeBlock(SourceType type, const uint8_t* source, int64_t index, float* out) {
  const SourceBlock stored = SourceBlockOf(type);
  if (stored.elements == 1) {
    for (int64_t i = 0; i < kBlock; ++i) {
      const uint8_t* element = source + (index * kBlock + i) * stored.bytes;
      if (type == SourceType::kF32) {
        std::memcpy(&out[i], element, sizeof(float));
      } else {
        out[i] = type == SourceType::kF16 ? LoadF16(element) : FloatFromBF16(Load16(element));
      }
    }
    return;
  }
  const int64_t per_stored = stored.elements / kBlock;
  const uint8_t* block = source + index / per_stored * stored.bytes;
  const int sub_block = static_cast<int>(index % per_stored);
  if (type == SourceType::kQ5_K) return DequantizeQ5K(block, sub_block, out);
  if (type == SourceType::kQ6_K) return DequantizeQ6K(block, sub_block, out);
  if (type == SourceType::kNF4) return DequantizeNf4(block, sub_block, out);
  const DecodedBlock decoded = DecodeBlock(type, source, index);
  for (int i = 0; i < kBlock; ++i) {
    int code = decoded.codes[i];
    if (type == SourceType::kQ4_0) code -= 8;
    if (type == SourceType::kIQ4_NL) code = kIq4NlCodebook[code];
    out[i] = decoded.scale * static_cast<float>(code) + decoded.min;
  }
}

}  // namespace tandem::cpu
