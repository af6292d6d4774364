// Rows of activations to int8 in blocks of 32.
#include <cstring>
#include <limits>

#include "common/kernels/cpu/matmul.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/kernels/cpu/activations.cc"
#include <hwy/foreach_target.h>  // before highway.h
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Blocks whose largest value is below this count as zero: their scale has no inverse.
constexpr float kSmallest = 1e-30f;

// Writes the codes and the scale of 32 values. The same bits on every target: a maximum has
// no order.
HWY_INLINE void QuantizeBlock(const float* HWY_RESTRICT x, ActivationBlock* HWY_RESTRICT block) {
  const hn::CappedTag<float, 16> df;
  const hn::RebindToSigned<decltype(df)> di;
  const hn::Rebind<int8_t, decltype(df)> d8;
  // As integers, magnitudes are in the order of the floats; infinities and NaN come last.
  const auto magnitude_bits = hn::Set(di, 0x7fffffff);
  constexpr int32_t kInfinityBits = 0x7f800000;
  auto largest = hn::Zero(di);
  for (size_t i = 0; i < 32; i += hn::Lanes(df)) {
    const auto bits = hn::BitCast(di, hn::LoadU(df, x + i));
    largest = hn::Max(largest, hn::And(bits, magnitude_bits));
  }
  const int32_t absmax_bits = hn::GetLane(hn::MaxOfLanes(di, largest));
  const bool is_finite = absmax_bits < kInfinityBits;
  float absmax;
  std::memcpy(&absmax, &absmax_bits, sizeof(absmax));
  const float inverse = is_finite && absmax >= kSmallest ? 127.0f / absmax : 0.0f;
  for (size_t i = 0; i < 32; i += hn::Lanes(df)) {
    const auto scaled = hn::Mul(hn::LoadU(df, x + i), hn::Set(df, inverse));
    hn::StoreU(hn::DemoteTo(d8, hn::NearestInt(scaled)), d8, block->codes + i);
  }
  block->scale = is_finite ? absmax * (1.0f / 127.0f) : std::numeric_limits<float>::quiet_NaN();
}

HWY_INLINE int32_t SumOfCodes(const int8_t* HWY_RESTRICT codes) {
#if HWY_TARGET == HWY_SCALAR
  int32_t sum = 0;
  for (size_t i = 0; i < 32; ++i) sum += codes[i];
  return sum;
#else
  const hn::CappedTag<uint8_t, 32> d8;
  const hn::Repartition<uint64_t, decltype(d8)> d64;
  auto sums = hn::Zero(d64);
  for (size_t i = 0; i < 32; i += hn::Lanes(d8)) {
    const auto bytes = hn::LoadU(d8, reinterpret_cast<const uint8_t*>(codes) + i);
    sums = hn::Add(sums, hn::SumsOf8(hn::Xor(bytes, hn::Set(d8, 0x80))));
  }
  return static_cast<int32_t>(hn::GetLane(hn::SumOfLanes(d64, sums))) - 32 * 128;
#endif
}

// Quantizes a row; its blocks lie `stride` apart. Sums come in a second pass, when the stores
// of the codes are through.
void QuantizeRow(const float* HWY_RESTRICT x, int64_t num_blocks, int64_t stride,
                 ActivationBlock* HWY_RESTRICT blocks) {
  for (int64_t i = 0; i < num_blocks; ++i) QuantizeBlock(x + 32 * i, blocks + i * stride);
  for (int64_t i = 0; i < num_blocks; ++i) {
    ActivationBlock& block = blocks[i * stride];
    const int32_t sum = SumOfCodes(block.codes);
    block.scaled_sum = block.scale * static_cast<float>(sum);
    block.minus_8_sums = -8 * sum;
    block.minus_128_sums = -128 * sum;
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem::cpu {

HWY_EXPORT(QuantizeRow);

// Up to here one thread is faster than waking another: about 1 us.
constexpr int64_t kAloneValues = 2048;

Activations::Activations(int64_t max_rows, int64_t max_cols)
    : blocks_(std::make_unique<ActivationBlock[]>(static_cast<size_t>(max_rows * max_cols / 32))) {}

void Activations::Set(const float* x, int64_t num_rows, int64_t num_cols, ThreadPool& pool) {
  x_ = x;
  num_rows_ = num_rows;
  num_cols_ = num_cols;
  const auto quantize = [&](int32_t row, int32_t) {
    const int64_t first_row = row / kTileRows * kTileRows;
    HWY_DYNAMIC_DISPATCH(QuantizeRow)
    (x + row * num_cols, num_cols / 32, tile_rows(first_row),
     blocks_.get() + first_row * (num_cols / 32) + (row - first_row));
  };
  if (num_rows * num_cols <= kAloneValues) {
    for (int32_t row = 0; row < num_rows; ++row) quantize(row, 0);
  } else {
    pool.Run(static_cast<int32_t>(num_rows), quantize);
  }
}

}  // namespace tandem::cpu
#endif  // HWY_ONCE
