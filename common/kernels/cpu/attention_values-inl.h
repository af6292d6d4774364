// Weighted sums of a V tile: unpacking V, and its sums; for every SIMD target.
//
// Codes are summed in f32 without their scales, which the weights absorb. Lanes are dimensions;
// positions are added one by one in ascending order, so a sum's bits depend on no other query.
#if defined(TANDEM_KERNELS_CPU_ATTENTION_VALUES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TANDEM_KERNELS_CPU_ATTENTION_VALUES_INL_H_
#undef TANDEM_KERNELS_CPU_ATTENTION_VALUES_INL_H_
#else
#define TANDEM_KERNELS_CPU_ATTENTION_VALUES_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "common/kernels/cpu/attention_scores-inl.h"
#include "common/kernels/cpu/attention_scratch.h"
#include "common/kernels/cpu/attention_source.h"
#include "common/kernels/cpu/kv_region.h"

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Unpacks k4 codes: `count` bytes, 16 or 32, to 2 * count levels.
template <int32_t kBytes>
HWY_INLINE void UnpackNibbles(const uint8_t* HWY_RESTRICT from, int8_t* HWY_RESTRICT to) {
  const hn::CappedTag<uint8_t, kBytes> d;
  const hn::RebindToSigned<decltype(d)> d8;
  const auto bias = hn::Set(d, uint8_t{kK4Bias});
  for (size_t i = 0; i < kBytes; i += hn::Lanes(d)) {
    const auto packed = hn::LoadU(d, from + i);
    const auto low = hn::Sub(Levels(d, packed), bias);
    const auto high = hn::Sub(Levels(d, hn::ShiftRight<4>(packed)), bias);
    hn::StoreU(hn::BitCast(d8, low), d8, to + i);
    hn::StoreU(hn::BitCast(d8, high), d8, to + kBytes + i);
  }
}

// Unpacks `count` positions of one page, those from `p` of the tile on: f16 to
// scratch.v, else to scratch.v_codes and v_scales.
HWY_INLINE void UnpackVRun(const KvLayout& layout, const uint8_t* region, int32_t slot,
                           int32_t count, int32_t p, AttentionScratch& scratch) {
  const KvType type = layout.v_type;
  const int32_t head_dim = layout.head_dim;
  const uint8_t* codes = region + CodeBytes(type, head_dim) * slot;
  if (type == KvType::kF16) {
    F16ToFloat(codes, count * head_dim, 1.0f, scratch.v.get() + int64_t{p} * head_dim);
    return;
  }
  int8_t* to = scratch.v_codes.get() + int64_t{p} * head_dim;
  if (type == KvType::k8) {
    std::memcpy(to, codes, static_cast<size_t>(count) * head_dim);
  } else {
    for (int32_t i = 0; i < count; ++i) {
      int32_t dim = 0;
      for (; dim + 64 <= head_dim; dim += 64, codes += 32, to += 64) UnpackNibbles<32>(codes, to);
      if (dim < head_dim) {
        UnpackNibbles<16>(codes, to);
        codes += 16;
        to += 32;
      }
    }
  }
  for (int32_t b = 0; b < head_dim / kKvBlock; ++b) {
    F16ToFloat(region + ScaleOffset(layout, type, b, slot), count,
               type == KvType::k8 ? k8Unit : kCodebookUnit,
               scratch.v_scales.get() + b * kTilePositions + p);
  }
}

// Unpacks the V of positions [start, start + count) of one KV head.
HWY_INLINE void UnpackVTile(const KvSource& source, int32_t start, int32_t count,
                            AttentionScratch& scratch) {
  const KvLayout& layout = *source.layout;
  for (int32_t p = 0; p < count;) {
    const KvSlot slot = source.Locate(start + p);
    const int32_t run = std::min(count - p, layout.page_positions - slot.index);
    UnpackVRun(layout, slot.page + source.v_offset, slot.index, run, p, scratch);
    p += run;
  }
}

// False when a value of the tile is NaN or infinite.
HWY_INLINE bool IsFiniteVTile(const KvLayout& layout, int32_t count,
                              const AttentionScratch& scratch) {
  const hn::CappedTag<float, 16> d;
  auto zero = hn::Zero(d);  // stays so unless a value is not finite
  const auto add = [&](const float* HWY_RESTRICT from, int32_t size) HWY_ATTR {
    for (int32_t i = 0; i < size; i += static_cast<int32_t>(hn::Lanes(d))) {
      const auto is_inside = hn::FirstN(d, static_cast<size_t>(size - i));
      const auto value = hn::IfThenElseZero(is_inside, hn::Load(d, from + i));
      zero = hn::MulAdd(value, hn::Zero(d), zero);
    }
  };
  if (layout.v_type == KvType::kF16) {
    add(scratch.v.get(), count * layout.head_dim);
  } else {
    for (int32_t b = 0; b < layout.head_dim / kKvBlock; ++b) {
      add(scratch.v_scales.get() + b * kTilePositions, count);
    }
  }
  return hn::GetLane(hn::SumOfLanes(d, zero)) == 0.0f;
}

// Codes as f32, where enough queries share the tile to pay for storing it.
HWY_INLINE void ExpandVTile(int32_t count, int32_t head_dim, AttentionScratch& scratch) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<int8_t, decltype(d)> d8;
  const int32_t lanes = static_cast<int32_t>(hn::Lanes(d));
  for (int32_t i = 0; i < count * head_dim; i += lanes) {
    const auto code = hn::PromoteTo(di, hn::LoadU(d8, scratch.v_codes.get() + i));
    hn::Store(hn::ConvertTo(d, code), d, scratch.v.get() + i);
  }
}

// Where a tile's values and weights are for AddValues.
struct ValueTile {
  const float* values = nullptr;   // [position, head_dim]
  const int8_t* codes = nullptr;   // likewise
  const float* weights = nullptr;  // [query][block][kTilePositions]
  int32_t head_dim = 0;
  int32_t count = 0;
};

// Scales the sums of kQueries queries by their factors and adds the weighted values
// of the tile, for kVectors vectors of dimensions from `dim` on.
template <int32_t kQueries, int32_t kVectors, bool kFromCodes>
HWY_INLINE void AddValues(const ValueTile& tile, int32_t dim, const float* HWY_RESTRICT factors,
                          float* HWY_RESTRICT states) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<int8_t, decltype(d)> d8;
  constexpr int32_t kLanes = static_cast<int32_t>(hn::MaxLanes(d));
  const int64_t stride = StateStride(tile.head_dim);
  const int32_t query_weights = tile.head_dim / kKvBlock * kTilePositions;
  const float* HWY_RESTRICT weights = tile.weights + dim / kKvBlock * kTilePositions;
  hn::Vec<decltype(d)> sum[kQueries][kVectors];
  for (int32_t j = 0; j < kQueries; ++j) {
    for (int32_t i = 0; i < kVectors; ++i) {
      const float* from = states + j * stride + kStateSums + dim + i * kLanes;
      sum[j][i] = hn::Mul(hn::Load(d, from), hn::Set(d, factors[j]));
    }
  }
  for (int32_t p = 0; p < tile.count; ++p) {
    hn::Vec<decltype(d)> value[kVectors];
    for (int32_t i = 0; i < kVectors; ++i) {
      const int64_t index = int64_t{p} * tile.head_dim + dim + i * kLanes;
      if constexpr (kFromCodes) {
        const auto code = hn::PromoteTo(di, hn::LoadU(d8, tile.codes + index));
        value[i] = hn::ConvertTo(d, code);
      } else {
        value[i] = hn::Load(d, tile.values + index);
      }
    }
    for (int32_t j = 0; j < kQueries; ++j) {
      for (int32_t i = 0; i < kVectors; ++i) {
        const int32_t block = i * kLanes / kKvBlock;
        const float weight = weights[j * query_weights + block * kTilePositions + p];
        sum[j][i] = hn::MulAdd(hn::Set(d, weight), value[i], sum[j][i]);
      }
    }
  }
  for (int32_t j = 0; j < kQueries; ++j) {
    for (int32_t i = 0; i < kVectors; ++i) {
      hn::Store(sum[j][i], d, states + j * stride + kStateSums + dim + i * kLanes);
    }
  }
}

// As above, for all dimensions.
template <int32_t kQueries, bool kFromCodes>
HWY_INLINE void AddAllValues(const ValueTile& tile, const float* HWY_RESTRICT factors,
                             float* HWY_RESTRICT states) {
  // Four vectors of 16 lanes and four queries make 16 sums, of 32 registers; two of 8
  // lanes make 8 sums, of 16.
  constexpr int32_t kLanes = static_cast<int32_t>(hn::MaxLanes(hn::CappedTag<float, 16>()));
  constexpr int32_t kVectors = kLanes == 16 ? 4 : 2;
  int32_t dim = 0;
  for (; dim + kVectors * kLanes <= tile.head_dim; dim += kVectors * kLanes) {
    AddValues<kQueries, kVectors, kFromCodes>(tile, dim, factors, states);
  }
  if (dim < tile.head_dim) AddValues<kQueries, 2, kFromCodes>(tile, dim, factors, states);
}

// Adds a tile to the sums of kQueries queries from `query` on. `factors` is of the
// first of them, and `is_expanded` says that scratch.v holds the tile.
template <int32_t kQueries>
HWY_INLINE void AddTile(KvType type, int32_t query, int32_t count, int32_t head_dim,
                        bool is_expanded, const float* HWY_RESTRICT factors,
                        AttentionScratch& scratch) {
  const hn::CappedTag<float, 16> d;
  const int32_t num_blocks = head_dim / kKvBlock;
  float* to = scratch.v_weights.get();
  for (int32_t j = 0; j < kQueries; ++j) {
    const float* from = scratch.weights.get() + (query + j) * kTilePositions;
    for (int32_t b = 0; b < num_blocks; ++b, to += kTilePositions) {
      const float* scales = scratch.v_scales.get() + b * kTilePositions;
      for (int32_t p = 0; p < count; p += static_cast<int32_t>(hn::Lanes(d))) {
        const auto weight = hn::Load(d, from + p);
        const bool is_f16 = type == KvType::kF16;
        hn::Store(is_f16 ? weight : hn::Mul(weight, hn::Load(d, scales + p)), d, to + p);
      }
    }
  }
  const ValueTile tile = {.values = scratch.v.get(),
                          .codes = scratch.v_codes.get(),
                          .weights = scratch.v_weights.get(),
                          .head_dim = head_dim,
                          .count = count};
  float* states = scratch.split.get() + query * StateStride(head_dim);
  if (is_expanded) {
    AddAllValues<kQueries, false>(tile, factors, states);
  } else {
    AddAllValues<kQueries, true>(tile, factors, states);
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TANDEM_KERNELS_CPU_ATTENTION_VALUES_INL_H_
