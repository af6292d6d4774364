// Weighted sums of a V tile: unpacking V to f32, and its sums; for every SIMD target.
//
// Lanes are dimensions; positions are added one by one in ascending order, so a sum's
// bits depend on no other query.
#if defined(TANDEM_KERNELS_CPU_ATTENTION_VALUES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TANDEM_KERNELS_CPU_ATTENTION_VALUES_INL_H_
#undef TANDEM_KERNELS_CPU_ATTENTION_VALUES_INL_H_
#else
#define TANDEM_KERNELS_CPU_ATTENTION_VALUES_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

#include "common/kernels/cpu/attention_scores-inl.h"
#include "common/kernels/cpu/attention_scratch.h"
#include "common/kernels/cpu/attention_source.h"
#include "common/kernels/cpu/kv_quantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Unpacks one block of 32 values of k8.
HWY_INLINE void UnpackV8(const uint8_t* HWY_RESTRICT codes, float scale, float* HWY_RESTRICT to) {
  const hn::CappedTag<float, 16> d;
  const hn::Rebind<int32_t, decltype(d)> di;
  const hn::Rebind<int8_t, decltype(d)> d8;
  const auto* signed_codes = reinterpret_cast<const int8_t*>(codes);
  for (size_t i = 0; i < kKvBlock; i += hn::Lanes(d)) {
    const auto code = hn::PromoteTo(di, hn::LoadU(d8, signed_codes + i));
    hn::Store(hn::Mul(hn::ConvertTo(d, code), hn::Set(d, scale)), d, to + i);
  }
}

// Unpacks one block of 32 values of k4.
HWY_INLINE void UnpackV4(const uint8_t* HWY_RESTRICT codes, float scale, float* HWY_RESTRICT to) {
  const hn::CappedTag<uint8_t, kKvBlock / 2> d;
  alignas(64) uint8_t levels[kKvBlock];
  for (size_t i = 0; i < kKvBlock / 2; i += hn::Lanes(d)) {
    const auto packed = hn::LoadU(d, codes + i);
    const auto bias = hn::Set(d, uint8_t{kK4Bias});
    hn::Store(hn::Sub(Levels(d, packed), bias), d, levels + i);
    hn::Store(hn::Sub(Levels(d, hn::ShiftRight<4>(packed)), bias), d, levels + kKvBlock / 2 + i);
  }
  UnpackV8(levels, scale, to);
}

// Unpacks the V of positions [start, start + count) of one KV head.
HWY_INLINE void UnpackVTile(const KvSource& source, int32_t start, int32_t count,
                            AttentionScratch& scratch) {
  const KvLayout& layout = *source.layout;
  const KvType type = layout.v_type;
  const int64_t code_bytes = CodeBytes(type, layout.head_dim);
  const float unit = type == KvType::k8 ? k8Unit : kCodebookUnit;
  for (int32_t p = 0; p < count; ++p) {
    const KvSlot slot = source.Locate(start + p);
    const uint8_t* region = slot.page + source.v_offset;
    const uint8_t* codes = region + code_bytes * slot.index;
    float* to = scratch.v.get() + int64_t{p} * layout.head_dim;
    if (type == KvType::kF16) {
      F16ToFloat(codes, layout.head_dim, 1.0f, to);
      continue;
    }
    for (int32_t b = 0; b < layout.head_dim / kKvBlock; ++b) {
      uint16_t bits;
      std::memcpy(&bits, region + ScaleOffset(layout, type, b, slot.index), sizeof(bits));
      const float scale = FloatFromF16Bits(bits) * unit;
      if (type == KvType::k8) {
        UnpackV8(codes + b * kKvBlock, scale, to + b * kKvBlock);
      } else {
        UnpackV4(codes + b * kKvBlock / 2, scale, to + b * kKvBlock);
      }
    }
  }
}

// Scales the sums of kQueries queries by their factors and adds the weighted values
// of the tile, for kVectors vectors of dimensions from `dim` on.
template <int32_t kQueries, int32_t kVectors>
HWY_INLINE void AddValues(int32_t count, int32_t head_dim, int32_t dim,
                          const float* HWY_RESTRICT values, const float* HWY_RESTRICT weights,
                          const float* HWY_RESTRICT factors, float* HWY_RESTRICT states) {
  const hn::CappedTag<float, 16> d;
  const int64_t stride = StateStride(head_dim);
  const int32_t lanes = static_cast<int32_t>(hn::Lanes(d));
  hn::Vec<decltype(d)> sum[kQueries][kVectors];
  for (int32_t j = 0; j < kQueries; ++j) {
    for (int32_t i = 0; i < kVectors; ++i) {
      const float* from = states + j * stride + kStateSums + dim + i * lanes;
      sum[j][i] = hn::Mul(hn::Load(d, from), hn::Set(d, factors[j]));
    }
  }
  for (int32_t p = 0; p < count; ++p) {
    hn::Vec<decltype(d)> value[kVectors];
    for (int32_t i = 0; i < kVectors; ++i) {
      value[i] = hn::Load(d, values + int64_t{p} * head_dim + dim + i * lanes);
    }
    for (int32_t j = 0; j < kQueries; ++j) {
      const auto weight = hn::Set(d, weights[j * kTilePositions + p]);
      for (int32_t i = 0; i < kVectors; ++i) {
        sum[j][i] = hn::MulAdd(weight, value[i], sum[j][i]);
      }
    }
  }
  for (int32_t j = 0; j < kQueries; ++j) {
    for (int32_t i = 0; i < kVectors; ++i) {
      hn::Store(sum[j][i], d, states + j * stride + kStateSums + dim + i * lanes);
    }
  }
}

// As above, for all dimensions. `factors` is of the first query.
template <int32_t kQueries>
HWY_INLINE void AddTile(int32_t query, int32_t count, int32_t head_dim,
                        const float* HWY_RESTRICT factors, AttentionScratch& scratch) {
  const hn::CappedTag<float, 16> d;
  constexpr int32_t kVectors = 2;  // head_dim is a multiple of two vectors
  const int32_t step = kVectors * static_cast<int32_t>(hn::Lanes(d));
  float* states = scratch.split.get() + query * StateStride(head_dim);
  const float* weights = scratch.weights.get() + query * kTilePositions;
  for (int32_t dim = 0; dim < head_dim; dim += step) {
    AddValues<kQueries, kVectors>(count, head_dim, dim, scratch.v.get(), weights, factors, states);
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TANDEM_KERNELS_CPU_ATTENTION_VALUES_INL_H_
