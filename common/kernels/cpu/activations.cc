// Rows of activations to int8 in blocks of 32.
#include <algorithm>

#include "common/kernels/cpu/matmul.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/kernels/cpu/activations.cc"
#include <hwy/foreach_target.h>  // before highway.h
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The same bits on every target: absmax has no order, and the sum is of integers.
void QuantizeRow(const float* HWY_RESTRICT x, int64_t num_cols, int8_t* HWY_RESTRICT codes,
                 float* HWY_RESTRICT scales, int32_t* HWY_RESTRICT sums) {
  const hn::CappedTag<float, 16> df;
  const hn::RebindToSigned<decltype(df)> di;
  const hn::Rebind<int8_t, decltype(df)> d8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  for (int64_t block = 0; block < num_cols / 32; ++block, x += 32, codes += 32) {
    auto largest = hn::Zero(df);
    auto not_finite = hn::Zero(df);  // stays 0 unless a value is infinite or NaN
    for (int64_t i = 0; i < 32; i += lanes) {
      const auto v = hn::LoadU(df, x + i);
      largest = hn::Max(largest, hn::Abs(v));
      not_finite = hn::Add(not_finite, hn::Sub(v, v));
    }
    const float absmax = hn::GetLane(hn::MaxOfLanes(df, largest));
    const auto inverse = hn::Set(df, absmax > 0.0f ? 127.0f / absmax : 0.0f);
    auto sum = hn::Zero(di);
    for (int64_t i = 0; i < 32; i += lanes) {
      const auto code = hn::NearestInt(hn::Mul(hn::LoadU(df, x + i), inverse));
      hn::StoreU(hn::DemoteTo(d8, code), d8, codes + i);
      sum = hn::Add(sum, code);
    }
    scales[block] = absmax * (1.0f / 127.0f) + hn::GetLane(hn::SumOfLanes(df, not_finite));
    sums[block] = hn::GetLane(hn::SumOfLanes(di, sum));
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem::cpu {

HWY_EXPORT(QuantizeRow);

Activations::Activations(int64_t max_rows, int64_t max_cols)
    : max_values_(max_rows * max_cols),
      codes_(std::make_unique<int8_t[]>(static_cast<size_t>(max_values_))),
      scales_(std::make_unique<float[]>(static_cast<size_t>(max_values_ / 32 + 1))),
      sums_(std::make_unique<int32_t[]>(static_cast<size_t>(max_values_ / 32 + 1))) {}

void Activations::Set(const float* x, int64_t num_rows, int64_t num_cols, ThreadPool& pool) {
  x_ = x;
  num_rows_ = num_rows;
  num_cols_ = num_cols;
  const int64_t blocks = num_cols / 32;
  pool.Run(static_cast<int32_t>(num_rows), [&](int32_t row, int32_t) {
    HWY_DYNAMIC_DISPATCH(QuantizeRow)
    (x + row * num_cols, num_cols, codes_.get() + row * num_cols, scales_.get() + row * blocks,
     sums_.get() + row * blocks);
  });
}

}  // namespace tandem::cpu
#endif  // HWY_ONCE
