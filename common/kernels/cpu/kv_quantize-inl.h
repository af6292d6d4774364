// Quantizes blocks of 32 K or V values, for every SIMD target.
#if defined(TANDEM_KERNELS_CPU_KV_QUANTIZE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TANDEM_KERNELS_CPU_KV_QUANTIZE_INL_H_
#undef TANDEM_KERNELS_CPU_KV_QUANTIZE_INL_H_
#else
#define TANDEM_KERNELS_CPU_KV_QUANTIZE_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/kernels/cpu/half-inl.h"
#include "common/kernels/cpu/kv_region.h"

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr float kF16Max = 65504.0f;
constexpr uint16_t kF16NanBits = 0x7E00;

// At most a block (32 values) in a vector, whatever the target.
using FloatTag = hn::CappedTag<float, kKvBlock>;

// The bits of `value` rounded to f16, clamped to its finite range; NaN of what is not
// finite: a fault of the model must come out as one, not as a large number.
HWY_INLINE uint16_t F16Bits(float value) {
  if (!std::isfinite(value)) return kF16NanBits;
  const hn::CappedTag<float, 1> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> d16;
  const auto clamped = hn::Clamp(hn::Set(d, value), hn::Set(d, -kF16Max), hn::Set(d, kF16Max));
  hwy::float16_t half;
  hn::Store(hn::DemoteTo(d16, clamped), d16, &half);
  uint16_t bits;
  std::memcpy(&bits, &half, sizeof(bits));
  return bits;
}

HWY_INLINE float FloatFromF16Bits(uint16_t bits) {
  const hn::CappedTag<float, 1> d;
  return hn::GetLane(LoadHalves(d, reinterpret_cast<const uint8_t*>(&bits)));
}

// The largest magnitude of a block; NaN when a value is not finite.
HWY_INLINE float AbsMax(const float* HWY_RESTRICT x) {
  const FloatTag d;
  auto largest = hn::Zero(d);
  auto zero = hn::Zero(d);  // stays so unless a value is not finite
  for (size_t i = 0; i < kKvBlock; i += hn::Lanes(d)) {
    const auto value = hn::LoadU(d, x + i);
    largest = hn::Max(largest, hn::Abs(value));
    zero = hn::MulAdd(value, hn::Zero(d), zero);
  }
  return hn::GetLane(hn::MaxOfLanes(d, largest)) + hn::GetLane(hn::SumOfLanes(d, zero));
}

// Codes in [-127, 127]; returns the bits of the scale, value = code / 128 * scale. The
// scale of a block with a value that is not finite is NaN, here and in Quantize4.
HWY_INLINE uint16_t Quantize8(const float* HWY_RESTRICT x, int32_t* HWY_RESTRICT codes) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  const float largest = AbsMax(x);
  if (std::isnan(largest)) {
    std::fill(codes, codes + kKvBlock, 0);
    return kF16NanBits;
  }
  const uint16_t bits = F16Bits(std::min(largest, kF16Max) * (128.0f / 127));
  const float scale = FloatFromF16Bits(bits);
  const auto inverse = hn::Set(d, scale > 0.0f ? 128.0f / scale : 0.0f);
  const auto low = hn::Set(d, -127.0f);
  const auto high = hn::Set(d, 127.0f);
  for (size_t i = 0; i < kKvBlock; i += hn::Lanes(d)) {
    const auto scaled = hn::Mul(hn::LoadU(d, x + i), inverse);
    hn::StoreU(hn::NearestInt(hn::Clamp(scaled, low, high)), di, codes + i);
  }
  return bits;
}

// What a 4-bit quantization with one candidate scale gives.
struct Fit4 {
  float error = 0.0f;  // sum of squared differences
  float refit = 0.0f;  // the scale that is best for the same codes
};

// Chooses the nearest level of each value under `scale`, not zero.
HWY_INLINE Fit4 Assign4(const float* HWY_RESTRICT x, float scale, int32_t* HWY_RESTRICT codes) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  const auto inverse = hn::Set(d, 1.0f / (scale * kCodebookUnit));
  const auto unit = hn::Set(d, scale * kCodebookUnit);
  auto error = hn::Zero(d);
  auto product = hn::Zero(d);
  auto square = hn::Zero(d);
  for (size_t i = 0; i < kKvBlock; i += hn::Lanes(d)) {
    const auto value = hn::LoadU(d, x + i);
    const auto scaled = hn::Mul(value, inverse);
    auto code = hn::Zero(di);
    auto level = hn::Set(d, kCodebook[0]);
    for (int32_t j = 1; j < 16; ++j) {
      const auto above = hn::Gt(scaled, hn::Set(d, 0.5f * (kCodebook[j - 1] + kCodebook[j])));
      level = hn::IfThenElse(above, hn::Set(d, kCodebook[j]), level);
      code = hn::IfThenElse(hn::RebindMask(di, above), hn::Set(di, j), code);
    }
    hn::StoreU(code, di, codes + i);
    const auto difference = hn::NegMulAdd(level, unit, value);
    error = hn::MulAdd(difference, difference, error);
    product = hn::MulAdd(value, level, product);
    square = hn::MulAdd(level, level, square);
  }
  const float sum = hn::GetLane(hn::SumOfLanes(d, product));
  const float norm = hn::GetLane(hn::SumOfLanes(d, square));  // > 0: no level is zero
  return {.error = hn::GetLane(hn::SumOfLanes(d, error)), .refit = sum / (norm * kCodebookUnit)};
}

// Codes in [0, 16); returns the bits of the scale. Tries scales of both signs (the
// levels reach further on the negative side) around the one that just fits the largest
// value, and for each the least-squares scale of the codes it led to.
HWY_INLINE uint16_t Quantize4(const float* HWY_RESTRICT x, int32_t* HWY_RESTRICT codes) {
  constexpr float kFactors[] = {0.95f, -0.95f, 1.1f, -1.1f, 1.25f, -1.25f};
  const float largest = AbsMax(x);
  uint16_t best_bits = 0;
  float best_error = 0.0f;
  for (size_t i = 0; i < kKvBlock; ++i) best_error += x[i] * x[i];
  std::fill(codes, codes + kKvBlock, 0);
  if (std::isnan(largest)) return kF16NanBits;
  for (const float factor : kFactors) {
    float candidate = largest * factor;
    for (int round = 0; round < 2; ++round) {
      const uint16_t bits = F16Bits(candidate);
      const float scale = FloatFromF16Bits(bits);
      if (!(scale * scale > 0.0f)) break;  // a block of zeros
      int32_t trial[kKvBlock];
      const Fit4 fit = Assign4(x, scale, trial);
      if (fit.error < best_error) {
        best_error = fit.error;
        best_bits = bits;
        std::memcpy(codes, trial, sizeof(trial));
      }
      candidate = fit.refit;
    }
  }
  return best_bits;
}

// The code whose level is nearest to `scaled`, in units of levels.
HWY_INLINE int32_t NearestLevel(float scaled) {
  // Midpoints of neighbouring levels; the last is never passed.
  HWY_ALIGN static constexpr float kMidpoints[16] = {-56.5f, -44.5f, -35.0f, -27.0f, -20.0f, -13.5f,
                                                     -7.5f,  -2.0f,  4.0f,   9.5f,   15.0f,  21.5f,
                                                     28.5f,  36.5f,  47.0f,  1e30f};
  static_assert(kMidpoints[0] * 2 == kCodebook[0] + kCodebook[1] &&
                kMidpoints[14] * 2 == kCodebook[14] + kCodebook[15]);
  const hn::CappedTag<float, 16> d;
  size_t code = 0;
  for (size_t i = 0; i < 16; i += hn::Lanes(d)) {
    code += hn::CountTrue(d, hn::Gt(hn::Set(d, scaled), hn::Load(d, kMidpoints + i)));
  }
  return static_cast<int32_t>(code);
}

// Rounds a head's values anew under the scales that Quantize4 chose, each after what the
// errors of the dimensions above it call for. `feedback` is one head's matrix of
// KeyFeedback; `x` is aligned.
HWY_INLINE void Requantize4(const float* HWY_RESTRICT x, const uint16_t* HWY_RESTRICT scale_bits,
                            const float* HWY_RESTRICT feedback, int32_t head_dim,
                            int32_t* HWY_RESTRICT codes) {
  const FloatTag d;
  HWY_ALIGN float target[kMaxHeadDim];
  std::memcpy(target, x, sizeof(float) * static_cast<size_t>(head_dim));
  for (int32_t block = head_dim / kKvBlock - 1; block >= 0; --block) {
    const float unit = FloatFromF16Bits(scale_bits[block]) * kCodebookUnit;
    const float inverse = unit != 0.0f ? 1.0f / unit : 0.0f;
    for (int32_t j = (block + 1) * kKvBlock - 1; j >= block * kKvBlock; --j) {
      codes[j] = NearestLevel(target[j] * inverse);
      const auto error = hn::Set(d, static_cast<float>(kCodebook[codes[j]]) * unit - x[j]);
      const float* row = feedback + int64_t{j} * head_dim;
      for (int32_t i = 0; i < j; i += static_cast<int32_t>(hn::Lanes(d))) {
        const auto moved = hn::NegMulAdd(error, hn::LoadU(d, row + i), hn::Load(d, target + i));
        hn::Store(moved, d, target + i);
      }
    }
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TANDEM_KERNELS_CPU_KV_QUANTIZE_INL_H_
