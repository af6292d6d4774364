// Outputs of one group of quantized weights for a few rows, for every SIMD target.
#if defined(TANDEM_KERNELS_CPU_QUANTIZED_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TANDEM_KERNELS_CPU_QUANTIZED_TILE_INL_H_
#undef TANDEM_KERNELS_CPU_QUANTIZED_TILE_INL_H_
#else
#define TANDEM_KERNELS_CPU_QUANTIZED_TILE_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

#include "common/kernels/cpu/half-inl.h"
#include "common/kernels/cpu/int_dot-inl.h"
#include "common/kernels/cpu/matmul.h"
#include "common/kernels/cpu/packed_layout.h"

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Rows that share an unpacked weight: their sums and results fill the registers.
constexpr int kMaxRows = HWY_TARGET == HWY_AVX3_DL ? 8 : 4;

// Records ahead of the one in work whose lines are asked for: some 2 KB, which covers the
// memory's latency at one core's share of its bandwidth.
constexpr int64_t kPrefetchRecords = 6;

HWY_INLINE void PrefetchRecord(const uint8_t* record, int64_t bytes) {
  for (int64_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(record + offset);
}

// acc[r] += the products of one record with kRows rows of x.
template <PackedFormat kFormat, int kRows>
HWY_INLINE void AddRecord(const uint8_t* HWY_RESTRICT record, size_t part,
                          const ActivationBlock* HWY_RESTRICT x, FloatVec* HWY_RESTRICT acc) {
  const FloatTag df;
  BlockSum<kFormat> sums[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) sums[r].Start(x[r]);
#pragma GCC unroll 16
  for (int i = 0; i < 8; ++i) {
    const CodeVec codes = LoadCodes<kFormat>(record, part, static_cast<size_t>(i));
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sums[r].Add(codes, x[r].codes + 4 * i);
  }
  const uint8_t* numbers = record + CodeBytes(kFormat) + 2 * part;
  const FloatVec scale = LoadHalves(FloatTag(), numbers);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const FloatVec factor = hn::Mul(scale, hn::Set(df, x[r].scale));
    acc[r] = hn::MulAdd(hn::ConvertTo(df, sums[r].Total()), factor, acc[r]);
  }
  if constexpr (kFormat == PackedFormat::kQ4Affine) {
    const FloatVec min = LoadHalves(FloatTag(), numbers + 32);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      acc[r] = hn::MulAdd(min, hn::Set(df, x[r].scaled_sum), acc[r]);
    }
  }
}

// out[r][0..15] = the group's outputs for kRows rows of x, whose blocks for one column lie
// `stride` before those for the next.
template <PackedFormat kFormat, int kRows>
HWY_NOINLINE void QuantizedTile(const uint8_t* HWY_RESTRICT group, int64_t num_blocks,
                                const ActivationBlock* HWY_RESTRICT x, int64_t stride,
                                float* HWY_RESTRICT out) {
  constexpr int64_t kRecordBytes = RecordBytes(kFormat);
  const FloatTag df;
  for (size_t part = 0; part < kGroupRows; part += hn::Lanes(df)) {
    FloatVec acc[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) acc[r] = hn::Zero(df);
    const uint8_t* HWY_RESTRICT record = group;
    const ActivationBlock* HWY_RESTRICT blocks = x;
    for (int64_t b = 0; b < num_blocks; ++b, record += kRecordBytes, blocks += stride) {
      PrefetchRecord(record + kPrefetchRecords * kRecordBytes, kRecordBytes);
      AddRecord<kFormat, kRows>(record, part, blocks, acc);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) hn::StoreU(acc[r], df, out + r * kGroupRows + part);
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TANDEM_KERNELS_CPU_QUANTIZED_TILE_INL_H_
