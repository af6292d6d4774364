#include "common/kernels/cpu/elementwise.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/kernels/cpu/elementwise.cc"
// clang-format off: the order matters
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Bound by L1 loads: 4 bytes per FMA. Two sums hide the FMA latency.
float SumOfSquares(const float* HWY_RESTRICT x, size_t dim) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  auto sum0 = hn::Zero(d);
  auto sum1 = hn::Zero(d);
  size_t i = 0;
  for (; i + 2 * lanes <= dim; i += 2 * lanes) {
    const auto x0 = hn::LoadU(d, x + i);
    const auto x1 = hn::LoadU(d, x + i + lanes);
    sum0 = hn::MulAdd(x0, x0, sum0);
    sum1 = hn::MulAdd(x1, x1, sum1);
  }
  float rest = 0.0f;  // at most two vectors, and a tail
  for (; i < dim; ++i) rest += x[i] * x[i];
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1))) + rest;
}

void RmsNormRow(const float* x, const float* HWY_RESTRICT weight, float epsilon, size_t dim,
                float* out) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const float mean = SumOfSquares(x, dim) / static_cast<float>(dim);
  const float factor = 1.0f / std::sqrt(mean + epsilon);
  const auto factors = hn::Set(d, factor);
  size_t i = 0;
  for (; i + lanes <= dim; i += lanes) {
    const auto scaled = hn::Mul(hn::LoadU(d, x + i), factors);
    hn::StoreU(hn::Mul(scaled, hn::LoadU(d, weight + i)), d, out + i);
  }
  for (; i < dim; ++i) out[i] = x[i] * factor * weight[i];
}

// A whole vector at a time, the tail in a padded one, so that an element's bits do not
// depend on where it is.
void SiluMulRow(const float* gate, const float* up, size_t dim, float* out) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto one = hn::Set(d, 1.0f);
  const auto silu_mul = [&](auto g, auto u) HWY_ATTR {
    const auto denominator = hn::Add(one, hn::Exp(d, hn::Neg(g)));
    return hn::Mul(hn::Div(g, denominator), u);
  };
  size_t i = 0;
  for (; i + lanes <= dim; i += lanes) {
    hn::StoreU(silu_mul(hn::LoadU(d, gate + i), hn::LoadU(d, up + i)), d, out + i);
  }
  if (i < dim) {
    HWY_ALIGN float g[hn::MaxLanes(d)] = {};
    HWY_ALIGN float u[hn::MaxLanes(d)] = {};
    for (size_t j = i; j < dim; ++j) g[j - i] = gate[j], u[j - i] = up[j];
    hn::Store(silu_mul(hn::Load(d, g), hn::Load(d, u)), d, g);
    for (size_t j = i; j < dim; ++j) out[j] = g[j - i];
  }
}

int64_t ArgMaxOf(const float* HWY_RESTRICT x, size_t n) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  auto largest = hn::Set(d, -HUGE_VALF);
  auto not_a_number = hn::Zero(d);  // stays finite: x * 0 is NaN for NaN and infinity
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto v = hn::LoadU(d, x + i);
    largest = hn::Max(largest, v);
    not_a_number = hn::Or(not_a_number, hn::VecFromMask(d, hn::IsNaN(v)));
  }
  bool has_nan = !hn::AllFalse(d, hn::IsNaN(not_a_number));
  float max = hn::GetLane(hn::MaxOfLanes(d, largest));
  for (; i < n; ++i) {
    has_nan = has_nan || std::isnan(x[i]);
    if (x[i] > max) max = x[i];
  }
  if (has_nan || max == -HUGE_VALF) return -1;
  const auto wanted = hn::Set(d, max);
  for (i = 0; i + lanes <= n; i += lanes) {
    const intptr_t found = hn::FindFirstTrue(d, hn::Eq(hn::LoadU(d, x + i), wanted));
    if (found >= 0) return static_cast<int64_t>(i) + found;
  }
  for (; i < n; ++i) {
    if (x[i] == max) break;
  }
  return static_cast<int64_t>(i);
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem::cpu {
namespace {

HWY_EXPORT(RmsNormRow);
HWY_EXPORT(SiluMulRow);
HWY_EXPORT(ArgMaxOf);

}  // namespace

void RmsNorm(const float* x, const float* weight, float epsilon, int64_t num_rows, int64_t dim,
             float* out, ThreadPool& pool) {
  pool.Run(static_cast<int32_t>(num_rows), [&](int32_t row, int32_t) {
    HWY_DYNAMIC_DISPATCH(RmsNormRow)
    (x + row * dim, weight, epsilon, static_cast<size_t>(dim), out + row * dim);
  });
}

void SiluMul(const float* gate, const float* up, int64_t num_rows, int64_t dim, float* out,
             ThreadPool& pool) {
  pool.Run(static_cast<int32_t>(num_rows), [&](int32_t row, int32_t) {
    HWY_DYNAMIC_DISPATCH(SiluMulRow)
    (gate + row * dim, up + row * dim, static_cast<size_t>(dim), out + row * dim);
  });
}

int64_t ArgMax(const float* x, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(ArgMaxOf)(x, static_cast<size_t>(n));
}

void RopeAngles(const int32_t* positions, int64_t num_rows, const float* inv_freq,
                int32_t num_pairs, float* cosines, float* sines) {
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int32_t i = 0; i < num_pairs; ++i) {
      const double angle = double{inv_freq[i]} * positions[row];
      cosines[row * num_pairs + i] = static_cast<float>(std::cos(angle));
      sines[row * num_pairs + i] = static_cast<float>(std::sin(angle));
    }
  }
}

void Rope(const RopeArgs& args, ThreadPool& pool) {
  const int32_t num_pairs = args.rope_dim / 2;
  pool.Run(static_cast<int32_t>(args.num_rows), [&](int32_t row, int32_t) {
    const float* cosines = args.cosines + int64_t{row} * num_pairs;
    const float* sines = args.sines + int64_t{row} * num_pairs;
    for (int32_t head = 0; head < args.num_heads; ++head) {
      float* pairs = args.x + row * args.x_stride + head * args.head_dim;
      for (int32_t i = 0; i < num_pairs; ++i) {
        const float a = pairs[2 * i];
        const float b = pairs[2 * i + 1];
        pairs[2 * i] = a * cosines[i] - b * sines[i];
        pairs[2 * i + 1] = a * sines[i] + b * cosines[i];
      }
    }
  });
}

}  // namespace tandem::cpu
#endif  // HWY_ONCE
