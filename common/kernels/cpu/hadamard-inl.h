// The orthonormal Hadamard transform of one head, for every SIMD target.
#if defined(TANDEM_KERNELS_CPU_HADAMARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TANDEM_KERNELS_CPU_HADAMARD_INL_H_
#undef TANDEM_KERNELS_CPU_HADAMARD_INL_H_
#else
#define TANDEM_KERNELS_CPU_HADAMARD_INL_H_
#endif

#include <hwy/highway.h>

#include <cmath>

#include "common/kernels/cpu/kv_region.h"

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Butterflies between elements `stride` apart, stride < lanes: a lane's partner is the
// lane whose index differs in one bit.
template <class D>
void HadamardInsideVectors(D d, float* HWY_RESTRICT x, size_t size, size_t stride) {
  const hn::RebindToSigned<D> di;
  const size_t lanes = hn::Lanes(d);
  const auto bit = hn::Set(di, static_cast<int32_t>(stride));
  const auto lane = hn::Iota(di, 0);
  const auto partner = hn::IndicesFromVec(d, hn::Xor(lane, bit));
  const auto is_upper = hn::RebindMask(d, hn::Ne(hn::And(lane, bit), hn::Zero(di)));
  for (size_t i = 0; i < size; i += lanes) {
    const auto own = hn::Load(d, x + i);
    const auto other = hn::TableLookupLanes(own, partner);
    hn::Store(hn::Add(other, hn::IfThenElse(is_upper, hn::Neg(own), own)), d, x + i);
  }
}

// Rotates x[0, head_dim), 64-byte aligned, in blocks of RotationSize(head_dim). Its
// own inverse.
HWY_INLINE void RotateHead(float* HWY_RESTRICT x, size_t head_dim) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const size_t size = RotationSize(static_cast<int32_t>(head_dim));
  for (size_t stride = 1; stride < lanes; stride *= 2) {
    HadamardInsideVectors(d, x, head_dim, stride);
  }
  for (size_t stride = lanes; stride < size; stride *= 2) {
    for (size_t i = 0; i < head_dim; i += 2 * stride) {
      for (size_t j = i; j < i + stride; j += lanes) {
        const auto low = hn::Load(d, x + j);
        const auto high = hn::Load(d, x + j + stride);
        hn::Store(hn::Add(low, high), d, x + j);
        hn::Store(hn::Sub(low, high), d, x + j + stride);
      }
    }
  }
  const auto norm = hn::Set(d, 1.0f / std::sqrt(static_cast<float>(size)));
  for (size_t i = 0; i < head_dim; i += lanes) {
    hn::Store(hn::Mul(hn::Load(d, x + i), norm), d, x + i);
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TANDEM_KERNELS_CPU_HADAMARD_INL_H_
