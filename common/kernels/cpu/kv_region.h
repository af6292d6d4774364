// Where one (layer, KV head) region of a page keeps its codes and scales on the CPU.
//
// A region holds the K (or V) of page_positions positions. Each position's bytes are
// its own, so a position can be appended or overwritten without reading another.
//
//   K codes   by groups of 16 positions (8 where page_positions is not a multiple of
//             16), inside a group by chunks of dimensions, so that one vector load
//             yields the same dimensions of neighbouring positions:
//               f16  [group][dim][position in group]
//               k8   [group][dim / 4][position in group][4 dims], code + 128
//               k4   [group][dim / 8][position in group][4 bytes]; byte b of chunk c:
//                    dim 8c + b in the low nibble, dim 8c + 4 + b in the high one
//   V codes   by position, so that one vector load yields neighbouring dimensions:
//               f16  [position][dim]
//               k8   [position][dim], signed
//               k4   [position][dim / 2], by chunks of n = 64 dimensions (the last of 32
//                    where head_dim is not a multiple of 64): dim b of the chunk in the
//                    low nibble of byte b, dim n / 2 + b in the high one
//   scales    f16 [dim / 32][position], after the codes; absent for f16
//
// A k8 value is code / 128 * scale; a k4 value is kCodebook[code] / 64 * scale.
#pragma once

#include <cstdint>

#include "common/kernels/kv_layout.h"

namespace tandem::cpu {

// Elements that share one scale.
inline constexpr int32_t kKvBlock = 32;

// Far above any model's; bounds the buffers on the stack.
inline constexpr int32_t kMaxHeadDim = 1024;

// Levels of the 4-bit code. Fitted (Lloyd's algorithm with the scale chosen per block,
// of either sign) to blocks of 32 Gaussian values, which is what rotation makes of K
// and V: mean squared error 0.0055 of the variance, where 16 even levels have 0.0088
// with the scale set by the largest value (as q4_0) and 0.0067 with the best scale.
// Within 7 bits, so that AVX2's maddubs cannot saturate: costs 1.6 % of that error.
inline constexpr int8_t kCodebook[16] = {-63, -50, -39, -31, -23, -17, -10, -5,
                                         1,   7,   12,  18,  25,  32,  41,  53};
inline constexpr float kCodebookUnit = 1.0f / 64;
inline constexpr float k8Unit = 1.0f / 128;

// K codes are unsigned in the integer dot products: value + bias.
inline constexpr int32_t kK4Bias = 64;
inline constexpr int32_t kK8Bias = 128;

// Positions whose K codes are interleaved.
constexpr int32_t GroupPositions(const KvLayout& layout) {
  return layout.page_positions % 16 == 0 ? 16 : 8;
}

// Bytes of one head's codes at one position, without the scales.
constexpr int64_t CodeBytes(KvType type, int32_t head_dim) {
  switch (type) {
    case KvType::kF16:
      return int64_t{2} * head_dim;
    case KvType::k8:
      return head_dim;
    case KvType::k4:
      return head_dim / 2;
  }
  return 0;
}

// Byte offset of the scale of (block, slot) from the start of a region.
constexpr int64_t ScaleOffset(const KvLayout& layout, KvType type, int32_t block, int32_t slot) {
  return CodeBytes(type, layout.head_dim) * layout.page_positions +
         (int64_t{block} * layout.page_positions + slot) * 2;
}

// Byte offset, from the start of a K region, of the first chunk of `slot`; the next
// chunks follow at a distance of GroupPositions() * chunk_bytes. A chunk is the bytes
// of one position that lie together: 2 for f16 (one dimension), 4 for k8 and k4.
constexpr int64_t KChunkOffset(const KvLayout& layout, int32_t slot) {
  const int32_t group = GroupPositions(layout);
  const int32_t chunk_bytes = layout.k_type == KvType::kF16 ? 2 : 4;
  return int64_t{slot / group} * group * CodeBytes(layout.k_type, layout.head_dim) +
         slot % group * chunk_bytes;
}

// Dimensions of the chunk of k4 V codes that `dim` is in.
constexpr int32_t V4ChunkDims(int32_t head_dim, int32_t dim) {
  return dim / 64 * 64 + 64 <= head_dim ? 64 : 32;
}

// Dimensions rotated together: the largest power of two that divides head_dim.
constexpr int32_t RotationSize(int32_t head_dim) { return head_dim & -head_dim; }

}  // namespace tandem::cpu
