// The product of one weight tile with eight rows of activations: the only arithmetic that
// matrices meet, whatever the kernel around it, so that a row's result has the same bits in
// a decode, in a verify and in a prefill.
#pragma once

#include "common/kernels/cuda/activations.h"
#include "common/kernels/cuda/device_matrix.h"
#include "common/kernels/cuda/mma.cuh"

namespace tandem::cuda {

// One lane's part of eight rows in a tile: the codes of row g, and for each half of 32
// columns the scales (and sums) of rows 2 * t and 2 * t + 1.
struct ActivationTile {
  uint4 codes;
  float2 scales[2];
  float2 sums[2];

  // As they lie in memory.
  __device__ __forceinline__ void SetScales(const float4& stored) {
    scales[0] = make_float2(stored.x, stored.y);
    scales[1] = make_float2(stored.z, stored.w);
  }
  __device__ __forceinline__ void SetSums(const float4& stored) {
    sums[0] = make_float2(stored.x, stored.y);
    sums[1] = make_float2(stored.z, stored.w);
  }
};

// The int8 codebook: its 16 entries, or the two tables of SplitCodebook.
struct Codebook {
  uint32_t words[4];
};

// What the compiler can tell to be the same for all lanes it keeps in uniform registers, which a
// permutation cannot read, and copies before each use (16 of 101 instructions a tile). So it shall
// not be able to tell: blocks have one dimension, threadIdx.y is 0.
__device__ __forceinline__ Codebook LoadCodebook(const uint32_t (&words)[4]) {
  uint32_t zero;
  asm volatile("mov.u32 %0, %%tid.y;" : "=r"(zero));
  return {{words[0] ^ zero, words[1] ^ zero, words[2] ^ zero, words[3] ^ zero}};
}
__device__ __forceinline__ Codebook LoadCodebook(const DeviceMatrix& matrix) {
  const uint32_t* book = reinterpret_cast<const uint32_t*>(matrix.codebook);
  return LoadCodebook({book[0], book[1], book[2], book[3]});
}
__device__ __forceinline__ Codebook LoadCodebook(const SplitCodebook& split) {
  const uint32_t* below = reinterpret_cast<const uint32_t*>(split.below);
  const uint32_t* above = reinterpret_cast<const uint32_t*>(split.above);
  return LoadCodebook({below[0], below[1], above[0], above[1]});
}

// Bytes of a and b by the low four nibbles of `selector`: by its low three bits, or where the
// fourth is set the sign of that byte eight times. (__byte_perm masks the fourth bit.)
__device__ __forceinline__ uint32_t Permute(uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t result;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(selector));
  return result;
}

// Half a weight tile, 32 columns, as an operand of MmaInt8. kSplit: as two, whose sum it is.
template <bool kSplit>
struct HalfTile {
  uint32_t words[4];
  uint32_t above[kSplit ? 4 : 1];
};

// Eight 4-bit codes to eight int8: the first four to register `first`, the others to `first` + 2.
// Each code's low three bits choose from both halves of the book, its high bit between the two.
__device__ __forceinline__ void DecodeWord(uint32_t word, const Codebook& book, int first,
                                           HalfTile<false>& a) {
  const uint32_t index = word & 0x77777777u;
  const uint32_t upper = ((word >> 1) & 0x44444444u) | 0x32103210u;
  a.words[first] = Permute(Permute(book.words[0], book.words[1], index),
                           Permute(book.words[2], book.words[3], index), upper);
  const uint32_t index_high = index >> 16;
  a.words[first + 2] = Permute(Permute(book.words[0], book.words[1], index_high),
                               Permute(book.words[2], book.words[3], index_high), upper >> 16);
}
// With two tables a third fewer instructions, and twice the products: for few rows.
__device__ __forceinline__ void DecodeWord(uint32_t word, const Codebook& book, int first,
                                           HalfTile<true>& a) {
  const uint32_t flipped = word ^ 0x88888888u;
  a.words[first] = Permute(book.words[0], book.words[1], word);
  a.words[first + 2] = Permute(book.words[0], book.words[1], word >> 16);
  a.above[first] = Permute(book.words[2], book.words[3], flipped);
  a.above[first + 2] = Permute(book.words[2], book.words[3], flipped >> 16);
}

// Without a codebook a mask does: kLinear4's codes come out sixteen times as large.
template <MatrixFormat F>
__device__ __forceinline__ void MaskWord(uint32_t word, int first, HalfTile<false>& a) {
  if constexpr (F == MatrixFormat::kLinear4) {
    a.words[first] = (word << 4) & 0xf0f0f0f0u;
    a.words[first + 2] = word & 0xf0f0f0f0u;
  } else {
    a.words[first] = word & 0x0f0f0f0fu;
    a.words[first + 2] = (word >> 4) & 0x0f0f0f0fu;
  }
}

// What a sum of a format's products has to be multiplied by: a power of two, which no rounding
// depends on.
constexpr float SumFactor(MatrixFormat format) {
  return format == MatrixFormat::kLinear4 ? 1.0f / 16.0f : 1.0f;
}

// One lane's part of a weight tile, as stored.
template <MatrixFormat F>
struct WeightTile {
  uint4 words[F == MatrixFormat::kCode8 ? 2 : 1];
};

template <MatrixFormat F>
__device__ __forceinline__ WeightTile<F> LoadWeightTile(const uint8_t* chunk, int tile, int lane) {
  WeightTile<F> result;
  const uint4* codes = reinterpret_cast<const uint4*>(chunk + tile * 32 * LaneCodeBytes(F));
  result.words[0] = LoadStreaming(codes + lane);
  if constexpr (F == MatrixFormat::kCode8) result.words[1] = LoadStreaming(codes + 32 + lane);
  return result;
}

// The first or second 32 columns.
template <MatrixFormat F, bool kSplit>
__device__ __forceinline__ HalfTile<kSplit> DecodeHalf(const WeightTile<F>& tile, int half,
                                                       const Codebook& book) {
  HalfTile<kSplit> a;
  if constexpr (F == MatrixFormat::kCode8) {
    static_assert(!kSplit);
    const uint4 words = tile.words[half];
    a.words[0] = words.x;
    a.words[2] = words.y;
    a.words[1] = words.z;
    a.words[3] = words.w;
  } else {
    const uint4 words = tile.words[0];
    const uint32_t first = half == 0 ? words.x : words.z;
    const uint32_t second = half == 0 ? words.y : words.w;
    if constexpr (HasCodebook(F)) {
      DecodeWord(first, book, 0, a);
      DecodeWord(second, book, 1, a);
    } else {
      static_assert(!kSplit);
      MaskWord<F>(first, 0, a);
      MaskWord<F>(second, 1, a);
    }
  }
  return a;
}

// The scales that a lane needs in a chunk, as stored.
template <MatrixFormat F>
struct ChunkScales {
  uint32_t words[GroupScaleBytes(F) / 4];
};

template <MatrixFormat F>
__device__ __forceinline__ ChunkScales<F> LoadChunkScales(const uint8_t* chunk, int lane) {
  ChunkScales<F> scales;
  const uint8_t* source = chunk + ChunkCodeBytes(F) + lane / 4 * GroupScaleBytes(F);
  if constexpr (F == MatrixFormat::kNf4) {
    const uint2 words = *reinterpret_cast<const uint2*>(source);
    scales.words[0] = words.x;
    scales.words[1] = words.y;
  } else {
#pragma unroll
    for (int i = 0; i < GroupScaleBytes(F) / 16; ++i) {
      const uint4 words = LoadStreaming(reinterpret_cast<const uint4*>(source) + i);
      scales.words[4 * i] = words.x;
      scales.words[4 * i + 1] = words.y;
      scales.words[4 * i + 2] = words.z;
      scales.words[4 * i + 3] = words.w;
    }
  }
  return scales;
}

// The scales of one tile: [row g, row g + 8][half]; minimums for kAffine4.
struct TileScales {
  float scale[2][2];
  float minimum[2][2];
};

// `row_scale`: offset and step of rows g and g + 8, for kNf4.
template <MatrixFormat F>
__device__ __forceinline__ TileScales DecodeScales(const ChunkScales<F>& stored, int tile,
                                                   const float2 (&row_scale)[2]) {
  TileScales scales;
#pragma unroll
  for (int row_half = 0; row_half < 2; ++row_half) {
    if constexpr (F == MatrixFormat::kNf4) {
      const uint32_t pair = stored.words[tile / 2] >> (16 * (tile % 2));
      const float code = static_cast<float>((pair >> (8 * row_half)) & 0xffu);
      scales.scale[row_half][0] = __fmaf_rn(row_scale[row_half].y, code, row_scale[row_half].x);
    } else if constexpr (F == MatrixFormat::kAffine4) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 pair = FloatPair(stored.words[(tile * 2 + row_half) * 2 + half]);
        scales.scale[row_half][half] = pair.x;
        scales.minimum[row_half][half] = pair.y;
      }
    } else {
      const float2 pair = FloatPair(stored.words[tile * 2 + row_half]);
      scales.scale[row_half][0] = pair.x;
      scales.scale[row_half][1] = pair.y;
    }
  }
  return scales;
}

// acc += tile * x. `a`: both halves decoded. kOneRow: nobody looks at columns of acc but the first.
template <MatrixFormat F, bool kOneRow = false, bool kSplit>
__device__ __forceinline__ void AccumulateTile(const HalfTile<kSplit> (&a)[2],
                                               const TileScales& scales, const ActivationTile& x,
                                               float (&acc)[4]) {
  int32_t first[4] = {0, 0, 0, 0};
  int32_t second[4] = {0, 0, 0, 0};
  MmaInt8(first, a[0].words, x.codes.x, x.codes.y);
  MmaInt8(second, a[1].words, x.codes.z, x.codes.w);
  if constexpr (kSplit) {
    MmaInt8(first, a[0].above, x.codes.x, x.codes.y);
    MmaInt8(second, a[1].above, x.codes.z, x.codes.w);
  }
#pragma unroll
  for (int i = 0; i < 4; i += kOneRow ? 2 : 1) {
    const int row_half = i / 2;
    const float x0 = i % 2 == 0 ? x.scales[0].x : x.scales[0].y;
    const float x1 = i % 2 == 0 ? x.scales[1].x : x.scales[1].y;
    const float d0 = static_cast<float>(first[i]);
    const float d1 = static_cast<float>(second[i]);
    if constexpr (F == MatrixFormat::kNf4) {
      const float dot = __fmaf_rn(x1, d1, __fmul_rn(x0, d0));
      acc[i] = __fmaf_rn(scales.scale[row_half][0], dot, acc[i]);
    } else {
      acc[i] = __fmaf_rn(__fmul_rn(scales.scale[row_half][0], x0), d0, acc[i]);
      acc[i] = __fmaf_rn(__fmul_rn(scales.scale[row_half][1], x1), d1, acc[i]);
    }
    if constexpr (F == MatrixFormat::kAffine4) {
      const float s0 = i % 2 == 0 ? x.sums[0].x : x.sums[0].y;
      const float s1 = i % 2 == 0 ? x.sums[1].x : x.sums[1].y;
      acc[i] = __fmaf_rn(scales.minimum[row_half][0], s0, acc[i]);
      acc[i] = __fmaf_rn(scales.minimum[row_half][1], s1, acc[i]);
    }
  }
}

// The chunks of a row that slice `slice` of `num_slices` sums, [first, last): each slice is
// one sum from its first chunk on, and the slices are added in order.
__device__ __forceinline__ int SliceBegin(int num_chunks, int slice, int num_slices) {
  return num_chunks * slice / num_slices;
}

}  // namespace tandem::cuda
