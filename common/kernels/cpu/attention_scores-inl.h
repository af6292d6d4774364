// Scores of a K tile: unpacking K, and its products with the queries; for every SIMD
// target.
//
// Lanes are positions, so nothing is summed across lanes, and a score's bits depend
// neither on its lane nor on how full the tile is. Against k8 and k4 the query is
// quantized too (8 bits, blocks of 32) and the products of a block are summed exactly
// in integers.
#if defined(TANDEM_KERNELS_CPU_ATTENTION_SCORES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TANDEM_KERNELS_CPU_ATTENTION_SCORES_INL_H_
#undef TANDEM_KERNELS_CPU_ATTENTION_SCORES_INL_H_
#else
#define TANDEM_KERNELS_CPU_ATTENTION_SCORES_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

#include "common/kernels/cpu/attention_scratch.h"
#include "common/kernels/cpu/attention_source.h"
#include "common/kernels/cpu/half-inl.h"
#include "common/kernels/cpu/kv_region.h"
#include "common/kernels/cpu/quad_dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int32_t kQuadBytes = 4;  // four dimensions of one position
constexpr int32_t kQuadRow = kTilePositions * kQuadBytes;
constexpr int32_t kBlockQuads = kKvBlock / kQuadBytes;

// f16 to f32 for `count` values, any count.
HWY_INLINE void F16ToFloat(const uint8_t* from, int32_t count, float factor,
                           float* HWY_RESTRICT to) {
  const hn::CappedTag<float, 16> d;
  const int32_t lanes = static_cast<int32_t>(hn::Lanes(d));
  int32_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(hn::Mul(LoadHalves(d, from + i * 2), hn::Set(d, factor)), d, to + i);
  }
  const hn::CappedTag<float, 1> d1;
  for (; i < count; ++i) {
    hn::Store(hn::Mul(LoadHalves(d1, from + i * 2), hn::Set(d1, factor)), d1, to + i);
  }
}

// The biased levels that the low nibbles of `v` stand for.
template <class D, class V>
HWY_INLINE V Levels(D d, V v) {
  alignas(16) static constexpr uint8_t kLevels[16] = {1,  14, 25, 33, 41, 47, 54,  59,
                                                      65, 71, 76, 82, 89, 96, 105, 117};
  static_assert(kLevels[0] == kCodebook[0] + kK4Bias && kLevels[15] == kCodebook[15] + kK4Bias);
  const V index = hn::And(v, hn::Set(d, uint8_t{15}));
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(d, kLevels[hn::GetLane(index)]);
#else
  return hn::TableLookupBytes(hn::LoadDup128(d, kLevels), index);
#endif
}

// Unpacks the codes of `kGroup` positions, those from `p` of the tile on.
template <int32_t kGroup>
HWY_INLINE void UnpackKGroup(KvType type, const uint8_t* HWY_RESTRICT from, int32_t head_dim,
                             int32_t p, AttentionScratch& scratch) {
  if (type == KvType::kF16) {
    const hn::CappedTag<float, kGroup> d;
    for (int32_t dim = 0; dim < head_dim; ++dim, from += kGroup * 2) {
      float* HWY_RESTRICT to = scratch.k.get() + dim * kTilePositions + p;
      for (size_t i = 0; i < kGroup; i += hn::Lanes(d)) {
        hn::StoreU(LoadHalves(d, from + i * 2), d, to + i);
      }
    }
    return;
  }
  const hn::CappedTag<uint8_t, kGroup * kQuadBytes> d;
  uint8_t* HWY_RESTRICT to = scratch.k_codes.get() + p * kQuadBytes;
  const int32_t chunk_dims = type == KvType::k8 ? 4 : 8;
  for (int32_t c = 0; c < head_dim / chunk_dims; ++c, from += kGroup * kQuadBytes) {
    for (size_t i = 0; i < kGroup * kQuadBytes; i += hn::Lanes(d)) {
      const auto packed = hn::LoadU(d, from + i);
      if (type == KvType::k8) {
        hn::StoreU(packed, d, to + c * kQuadRow + i);
      } else {
        hn::StoreU(Levels(d, packed), d, to + 2 * c * kQuadRow + i);
        const auto high = hn::ShiftRight<4>(packed);
        hn::StoreU(Levels(d, high), d, to + (2 * c + 1) * kQuadRow + i);
      }
    }
  }
}

// Unpacks the K of positions [start, start + count) of one KV head. Positions beyond,
// up to the end of a group, get what bytes there are: finite codes, but any scale.
HWY_INLINE void UnpackKTile(const KvSource& source, int32_t start, int32_t count,
                            AttentionScratch& scratch) {
  const KvLayout& layout = *source.layout;
  const KvType type = layout.k_type;
  const int32_t group = GroupPositions(layout);
  const float unit = type == KvType::k8 ? k8Unit : kCodebookUnit;
  for (int32_t p = 0; p < count; p += group) {
    const KvSlot slot = source.Locate(start + p);
    const uint8_t* region = slot.page + source.k_offset;
    const uint8_t* codes = region + KChunkOffset(layout, slot.index);
    if (group == 16) {
      UnpackKGroup<16>(type, codes, layout.head_dim, p, scratch);
    } else {
      UnpackKGroup<8>(type, codes, layout.head_dim, p, scratch);
    }
    if (type == KvType::kF16) continue;
    for (int32_t b = 0; b < layout.head_dim / kKvBlock; ++b) {
      F16ToFloat(region + ScaleOffset(layout, type, b, slot.index), group, unit,
                 scratch.k_scales.get() + b * kTilePositions + p);
    }
  }
}

// Scores of kQueries queries from `query` on, f16 K.
template <int32_t kQueries>
HWY_INLINE void ScoresF16(int32_t query, int32_t count, int32_t head_dim,
                          AttentionScratch& scratch) {
  const hn::CappedTag<float, 16> d;
  const float* HWY_RESTRICT q = scratch.q.get() + int64_t{query} * head_dim;
  for (int32_t p = 0; p < count; p += static_cast<int32_t>(hn::Lanes(d))) {
    hn::Vec<decltype(d)> sum[kQueries];
    for (int32_t j = 0; j < kQueries; ++j) sum[j] = hn::Zero(d);
    for (int32_t i = 0; i < head_dim; ++i) {
      const auto k = hn::Load(d, scratch.k.get() + i * kTilePositions + p);
      for (int32_t j = 0; j < kQueries; ++j) {
        sum[j] = hn::MulAdd(hn::Set(d, q[j * head_dim + i]), k, sum[j]);
      }
    }
    for (int32_t j = 0; j < kQueries; ++j) {
      hn::Store(sum[j], d, scratch.weights.get() + (query + j) * kTilePositions + p);
    }
  }
}

// Scores of kQueries queries from `query` on, k8 (codes of 8 bits) or k4 (7 bits).
template <int32_t kQueries, bool kWide>
HWY_INLINE void ScoresInteger(int32_t query, int32_t count, int32_t head_dim,
                              AttentionScratch& scratch) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  const int32_t num_blocks = head_dim / kKvBlock;
  const int8_t* HWY_RESTRICT codes = scratch.q_codes.get() + int64_t{query} * head_dim;
  const float* HWY_RESTRICT scales = scratch.q_scales.get() + query * num_blocks;
  const int32_t* HWY_RESTRICT biases = scratch.q_biases.get() + query * num_blocks;
  for (int32_t p = 0; p < count; p += static_cast<int32_t>(hn::Lanes(d))) {
    hn::Vec<decltype(d)> sum[kQueries];
    for (int32_t j = 0; j < kQueries; ++j) sum[j] = hn::Zero(d);
    for (int32_t b = 0; b < num_blocks; ++b) {
      hn::Vec<decltype(di)> dot[kQueries];
      for (int32_t j = 0; j < kQueries; ++j) dot[j] = hn::Set(di, biases[j * num_blocks + b]);
      for (int32_t c = b * kBlockQuads; c < (b + 1) * kBlockQuads; ++c) {
        const uint8_t* k = scratch.k_codes.get() + c * kQuadRow + p * kQuadBytes;
        for (int32_t j = 0; j < kQueries; ++j) {
          dot[j] = QuadDot<kWide>(di, dot[j], k, codes + j * head_dim + c * kQuadBytes);
        }
      }
      const auto scale = hn::Load(d, scratch.k_scales.get() + b * kTilePositions + p);
      for (int32_t j = 0; j < kQueries; ++j) {
        const auto scaled = hn::Mul(hn::ConvertTo(d, dot[j]), scale);
        sum[j] = hn::MulAdd(scaled, hn::Set(d, scales[j * num_blocks + b]), sum[j]);
      }
    }
    for (int32_t j = 0; j < kQueries; ++j) {
      hn::Store(sum[j], d, scratch.weights.get() + (query + j) * kTilePositions + p);
    }
  }
}

template <int32_t kQueries>
HWY_INLINE void Scores(KvType type, int32_t query, int32_t count, int32_t head_dim,
                       AttentionScratch& scratch) {
  switch (type) {
    case KvType::kF16:
      ScoresF16<kQueries>(query, count, head_dim, scratch);
      break;
    case KvType::k8:
      ScoresInteger<kQueries, true>(query, count, head_dim, scratch);
      break;
    case KvType::k4:
      ScoresInteger<kQueries, false>(query, count, head_dim, scratch);
      break;
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TANDEM_KERNELS_CPU_ATTENTION_SCORES_INL_H_
