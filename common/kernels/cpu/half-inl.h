// Loads half-precision numbers as floats, for every SIMD target.
#if defined(TANDEM_KERNELS_CPU_HALF_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TANDEM_KERNELS_CPU_HALF_INL_H_
#undef TANDEM_KERNELS_CPU_HALF_INL_H_
#else
#define TANDEM_KERNELS_CPU_HALF_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

#include "common/kernels/cpu/float16.h"

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// As many f16 numbers as `d` has lanes, at any address; NaN and infinity stay what they are.
template <class D>
HWY_INLINE hn::Vec<D> LoadHalves(D d, const uint8_t* HWY_RESTRICT from) {
#if HWY_TARGET == HWY_SCALAR  // Highway's takes NaN for a number there
  uint16_t bits;
  std::memcpy(&bits, from, sizeof(bits));
  return hn::Set(d, FloatFromF16(bits));
#else
  const hn::Rebind<hwy::float16_t, D> d16;
  return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(from)));
#endif
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TANDEM_KERNELS_CPU_HALF_INL_H_
