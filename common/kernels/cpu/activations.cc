// Rows of activations to int8 in blocks of 32.
#include "common/kernels/cpu/matmul.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/kernels/cpu/activations.cc"
#include <hwy/foreach_target.h>  // before highway.h
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Blocks whose largest value is below this count as zero: their codes' scale has no inverse.
constexpr float kSmallest = 1e-30f;

// Quantizes a row; its blocks lie `stride` apart. The same bits on every target: absmax has
// no order, and the sum is of integers.
void QuantizeRow(const float* HWY_RESTRICT x, int64_t num_blocks, int64_t stride,
                 ActivationBlock* HWY_RESTRICT block) {
  const hn::CappedTag<float, 16> df;
  const hn::RebindToSigned<decltype(df)> di;
  const hn::Rebind<int8_t, decltype(df)> d8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  for (int64_t index = 0; index < num_blocks; ++index, x += 32, block += stride) {
    auto largest = hn::Zero(df);
    auto not_finite = hn::Zero(df);  // stays 0 unless a value is infinite or NaN
    for (int64_t i = 0; i < 32; i += lanes) {
      const auto v = hn::LoadU(df, x + i);
      largest = hn::Max(largest, hn::Abs(v));
      not_finite = hn::Add(not_finite, hn::Sub(v, v));
    }
    const float absmax = hn::GetLane(hn::MaxOfLanes(df, largest));
    const auto inverse = hn::Set(df, absmax >= kSmallest ? 127.0f / absmax : 0.0f);
    auto sums = hn::Zero(di);
    for (int64_t i = 0; i < 32; i += lanes) {
      const auto code = hn::NearestInt(hn::Mul(hn::LoadU(df, x + i), inverse));
      hn::StoreU(hn::DemoteTo(d8, code), d8, block->codes + i);
      sums = hn::Add(sums, code);
    }
    const int32_t sum = hn::GetLane(hn::SumOfLanes(di, sums));
    block->scale = absmax * (1.0f / 127.0f) + hn::GetLane(hn::SumOfLanes(df, not_finite));
    block->scaled_sum = block->scale * static_cast<float>(sum);
    block->minus_8_sums = static_cast<int32_t>(-8 * int64_t{sum});
    block->minus_128_sums = static_cast<int32_t>(-128 * int64_t{sum});
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem::cpu {

HWY_EXPORT(QuantizeRow);

Activations::Activations(int64_t max_rows, int64_t max_cols)
    : blocks_(std::make_unique<ActivationBlock[]>(static_cast<size_t>(max_rows * max_cols / 32))) {}

void Activations::Set(const float* x, int64_t num_rows, int64_t num_cols, ThreadPool& pool) {
  x_ = x;
  num_rows_ = num_rows;
  num_cols_ = num_cols;
  const int64_t num_tiles = (num_rows + kTileRows - 1) / kTileRows;
  pool.Run(static_cast<int32_t>(num_tiles), [&](int32_t index, int32_t) {
    const int64_t first_row = index * kTileRows;
    const int64_t rows = tile_rows(first_row);
    ActivationBlock* blocks = blocks_.get() + first_row * (num_cols / 32);
    for (int64_t r = 0; r < rows; ++r) {
      HWY_DYNAMIC_DISPATCH(QuantizeRow)
      (x + (first_row + r) * num_cols, num_cols / 32, rows, blocks + r);
    }
  });
}

}  // namespace tandem::cpu
#endif  // HWY_ONCE
