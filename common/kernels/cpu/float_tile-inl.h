// Outputs of one group of float weights for a few rows, for every SIMD target.
#if defined(TANDEM_KERNELS_CPU_FLOAT_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TANDEM_KERNELS_CPU_FLOAT_TILE_INL_H_
#undef TANDEM_KERNELS_CPU_FLOAT_TILE_INL_H_
#else
#define TANDEM_KERNELS_CPU_FLOAT_TILE_INL_H_
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

template <PackedFormat kFormat>
HWY_INLINE FloatVec LoadElements(const uint8_t* HWY_RESTRICT from) {
  const FloatTag df;
  if constexpr (kFormat == PackedFormat::kF16) return LoadHalves(FloatTag(), from);
  if constexpr (kFormat == PackedFormat::kBF16) {
    const hn::Rebind<uint16_t, IntTag> d16;
    const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from));
    const hn::RebindToUnsigned<IntTag> du;
    return hn::BitCast(df, hn::ShiftLeft<16>(hn::PromoteTo(du, bits)));
  }
  return hn::LoadU(df, reinterpret_cast<const float*>(from));
}

// Column c goes to sum c mod 4, added up as (0 + 1) + (2 + 3): hides the FMA latency.
template <PackedFormat kFormat, int kRows>
HWY_NOINLINE void FloatTile(const uint8_t* HWY_RESTRICT group, const Activations& x,
                            int64_t first_row, float* HWY_RESTRICT out) {
  constexpr int64_t kBytes = ElementBytes(kFormat);
  const FloatTag df;
  const int64_t num_cols = x.num_cols();
  const float* HWY_RESTRICT x0 = x.floats() + first_row * num_cols;
  for (size_t part = 0; part < kGroupRows; part += hn::Lanes(df)) {
    FloatVec acc[kRows][4];
    for (int r = 0; r < kRows; ++r) {
      for (int s = 0; s < 4; ++s) acc[r][s] = hn::Zero(df);
    }
    for (int64_t col = 0; col < num_cols; col += 4) {
      const int64_t count = HWY_MIN(int64_t{4}, num_cols - col);
      for (int64_t s = 0; s < count; ++s) {
        const int64_t element = (col + s) * kGroupRows + static_cast<int64_t>(part);
        const FloatVec w = LoadElements<kFormat>(group + element * kBytes);
        for (int r = 0; r < kRows; ++r) {
          acc[r][s] = hn::MulAdd(w, hn::Set(df, x0[r * num_cols + col + s]), acc[r][s]);
        }
      }
    }
    for (int r = 0; r < kRows; ++r) {
      const FloatVec sum = hn::Add(hn::Add(acc[r][0], acc[r][1]), hn::Add(acc[r][2], acc[r][3]));
      hn::StoreU(sum, df, out + r * kGroupRows + part);
    }
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TANDEM_KERNELS_CPU_FLOAT_TILE_INL_H_
