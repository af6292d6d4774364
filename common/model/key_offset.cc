#include "common/model/key_offset.h"

#include <cmath>
#include <complex>

namespace tandem {
namespace {

// The mean of exp(i * frequency * p) over p in [0, count).
std::complex<double> MeanTurn(double frequency, int32_t count) {
  const std::complex<double> step = std::polar(1.0, frequency);
  if (std::abs(step - 1.0) < 1e-12) return 1.0;
  return (1.0 - std::polar(1.0, frequency * count)) / (1.0 - step) / static_cast<double>(count);
}

}  // namespace

KeyOffset::KeyOffset(int32_t num_layers, int32_t num_kv_heads, int32_t head_dim)
    : head_dim_(head_dim),
      kv_dim_(int64_t{num_kv_heads} * head_dim),
      num_rows_(static_cast<size_t>(num_layers)),
      sums_(static_cast<size_t>(num_layers * kv_dim_)),
      offsets_(sums_.size()) {}

void KeyOffset::Observe(int32_t layer, const float* k, int64_t num_rows) {
  num_rows_[layer] += num_rows;
  double* sums = sums_.data() + layer * kv_dim_;
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int64_t i = 0; i < kv_dim_; ++i) sums[i] += k[row * kv_dim_ + i];
  }
}

void KeyOffset::Build(const float* inv_freq, int32_t rope_dim, int32_t max_positions) {
  for (size_t i = 0; i < sums_.size(); i += 2) {
    const auto rows = static_cast<double>(num_rows_[i / static_cast<size_t>(kv_dim_)]);
    std::complex<double> mean(sums_[i] / rows, sums_[i + 1] / rows);
    const auto dim = static_cast<int32_t>(i) % head_dim_;
    if (dim < rope_dim) mean *= MeanTurn(inv_freq[dim / 2], max_positions);
    // What a damaged model yields must not reach the keys of tokens that are sound.
    if (!std::isfinite(mean.real()) || !std::isfinite(mean.imag())) mean = 0.0;
    offsets_[i] = static_cast<float>(mean.real());
    offsets_[i + 1] = static_cast<float>(mean.imag());
  }
}

void KeyOffset::Subtract(int32_t layer, float* k, int64_t num_rows) const {
  const float* offset = offsets_.data() + layer * kv_dim_;
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int64_t i = 0; i < kv_dim_; ++i) k[row * kv_dim_ + i] -= offset[i];
  }
}

}  // namespace tandem
