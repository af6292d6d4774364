// The running softmax of attention in base 2, for every SIMD target.
#if defined(TANDEM_KERNELS_CPU_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TANDEM_KERNELS_CPU_SOFTMAX_INL_H_
#undef TANDEM_KERNELS_CPU_SOFTMAX_INL_H_
#else
#define TANDEM_KERNELS_CPU_SOFTMAX_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

#include "common/kernels/cpu/attention_scratch.h"

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Below any score, and finite: the difference of two is 0, not NaN.
constexpr float kNoScore = -1e30f;

// 2^x for x <= 0; not less than 2^-126 however small x is. Relative error below 2e-7
// (minimax polynomial of the fraction in [-0.5, 0.5]); exact at 0; NaN of NaN.
template <class D>
HWY_INLINE hn::Vec<D> Exp2(D d, hn::Vec<D> x) {
  const hn::RebindToSigned<D> di;
  const auto shift = hn::Set(d, 12582912.0f);  // 1.5 * 2^23: the sum's unit is 1
  const auto is_nan = hn::IsNaN(x);
  x = hn::Max(hn::IfThenZeroElse(is_nan, x), hn::Set(d, -125.0f));
  const auto shifted = hn::Add(x, shift);  // its low bits are x rounded
  const auto fraction = hn::Sub(x, hn::Sub(shifted, shift));
  auto power = hn::Set(d, 0.001326472731307149f);
  power = hn::MulAdd(power, fraction, hn::Set(d, 0.009671512991189957f));
  power = hn::MulAdd(power, fraction, hn::Set(d, 0.05550733581185341f));
  power = hn::MulAdd(power, fraction, hn::Set(d, 0.24022242426872253f));
  power = hn::MulAdd(power, fraction, hn::Set(d, 0.6931470036506653f));
  power = hn::MulAdd(power, fraction, hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  const auto result = hn::BitCast(d, hn::Add(hn::BitCast(di, power), exponent));
  return hn::IfThenElse(is_nan, hn::NaN(d), result);
}

HWY_INLINE float Exp2(float x) {
  const hn::CappedTag<float, 1> d;
  return hn::GetLane(Exp2(d, hn::Set(d, x)));
}

// Turns a query's scores of a tile into weights relative to the largest score so far,
// and updates the state's maximum and sum. Scores from `count` on count as minus
// infinity; those up to `padded_count`, a multiple of the lanes, get weight 0.
// Returns the factor for what was summed before.
HWY_INLINE float SoftmaxTile(int32_t count, int32_t padded_count, float* HWY_RESTRICT scores,
                             float* HWY_RESTRICT state) {
  const hn::CappedTag<float, 16> d;
  const int32_t lanes = static_cast<int32_t>(hn::Lanes(d));
  const int32_t full_count = count - count % lanes;
  const auto in_tail = hn::FirstN(d, static_cast<size_t>(count - full_count));
  auto largest = hn::Set(d, kNoScore);
  for (int32_t p = 0; p < full_count; p += lanes) {
    largest = hn::Max(largest, hn::Load(d, scores + p));
  }
  if (full_count < count) {
    const auto score = hn::Load(d, scores + full_count);
    largest = hn::Max(largest, hn::IfThenElse(in_tail, score, hn::Set(d, kNoScore)));
  }
  const float old_max = state[kStateMax];
  const float tile_max = hn::GetLane(hn::MaxOfLanes(d, largest));
  const float new_max = tile_max > old_max ? tile_max : old_max;
  const auto offset = hn::Set(d, new_max);
  auto sum = hn::Zero(d);
  for (int32_t p = 0; p < full_count; p += lanes) {
    const auto weight = Exp2(d, hn::Sub(hn::Load(d, scores + p), offset));
    hn::Store(weight, d, scores + p);
    sum = hn::Add(sum, weight);
  }
  if (full_count < count) {
    const auto weight = Exp2(d, hn::Sub(hn::Load(d, scores + full_count), offset));
    const auto masked = hn::IfThenElseZero(in_tail, weight);
    hn::Store(masked, d, scores + full_count);
    sum = hn::Add(sum, masked);
  }
  for (int32_t p = full_count + (full_count < count ? lanes : 0); p < padded_count; p += lanes) {
    hn::Store(hn::Zero(d), d, scores + p);
  }
  const float factor = Exp2(old_max - new_max);
  state[kStateMax] = new_max;
  state[kStateSum] = state[kStateSum] * factor + hn::GetLane(hn::SumOfLanes(d, sum));
  return factor;
}

// Adds the state of later positions to the state of earlier ones.
HWY_INLINE void CombineStates(const float* HWY_RESTRICT later, int32_t head_dim,
                              float* HWY_RESTRICT state) {
  const hn::CappedTag<float, 16> d;
  const float new_max = later[kStateMax] > state[kStateMax] ? later[kStateMax] : state[kStateMax];
  const float state_factor = Exp2(state[kStateMax] - new_max);
  const float later_factor = Exp2(later[kStateMax] - new_max);
  state[kStateMax] = new_max;
  state[kStateSum] = state[kStateSum] * state_factor + later[kStateSum] * later_factor;
  float* HWY_RESTRICT sums = state + kStateSums;
  for (int32_t i = 0; i < head_dim; i += static_cast<int32_t>(hn::Lanes(d))) {
    const auto scaled = hn::Mul(hn::Load(d, sums + i), hn::Set(d, state_factor));
    const auto added = hn::Load(d, later + kStateSums + i);
    hn::Store(hn::MulAdd(added, hn::Set(d, later_factor), scaled), d, sums + i);
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TANDEM_KERNELS_CPU_SOFTMAX_INL_H_
