#include "common/kernels/cpu/key_feedback.h"

#include <algorithm>
#include <cmath>
#include <complex>

#include "common/kernels/cpu/kv_region.h"

namespace tandem::cpu {
namespace {

using Complex = std::complex<double>;

// Of the mean diagonal, added to all of it: directions that were not seen matter a bit.
constexpr double kDamping = 0.05;

// Mean of e^(i w m) over m in [0, length).
Complex MeanTurn(double w, double length) {
  const double angle = w * length;
  if (std::abs(angle) < 1e-6) return {1.0, 0.0};
  return {std::sin(angle) / angle, (1.0 - std::cos(angle)) / angle};
}

// Averages the 2 x 2 blocks of E[q q'] over positions. Pair a is the complex number
// z_a = q_2a + i q_2a+1, which RoPE turns by w_a m: E[z_a conj(z_b)] turns by w_a - w_b and
// E[z_a z_b] by w_a + w_b.
void AverageTurns(const float* inv_freq, int32_t rope_dim, double length, int32_t dim,
                  std::vector<double>& m) {
  const auto frequency = [&](int32_t pair) {
    return 2 * pair < rope_dim ? static_cast<double>(inv_freq[pair]) : 0.0;
  };
  for (int32_t a = 0; a < dim / 2; ++a) {
    for (int32_t b = 0; b < dim / 2; ++b) {
      double* top = &m[int64_t{2} * a * dim + 2 * b];
      double* bottom = top + dim;
      const Complex same = Complex(top[0] + bottom[1], bottom[0] - top[1]) *
                           MeanTurn(frequency(a) - frequency(b), length);
      const Complex both = Complex(top[0] - bottom[1], bottom[0] + top[1]) *
                           MeanTurn(frequency(a) + frequency(b), length);
      top[0] = 0.5 * (same.real() + both.real());
      bottom[1] = 0.5 * (same.real() - both.real());
      bottom[0] = 0.5 * (same.imag() + both.imag());
      top[1] = 0.5 * (both.imag() - same.imag());
    }
  }
}

// Rotates rows, or with a stride columns, as RotateHead does.
void RotateVector(int32_t dim, int64_t stride, double* x) {
  const int32_t size = RotationSize(dim);
  for (int32_t half = 1; half < size; half *= 2) {
    for (int32_t i = 0; i < dim; ++i) {
      if ((i & half) != 0) continue;
      const double low = x[i * stride];
      const double high = x[(i + half) * stride];
      x[i * stride] = (low + high) * std::sqrt(0.5);
      x[(i + half) * stride] = (low - high) * std::sqrt(0.5);
    }
  }
}

// Cholesky's factor in the lower triangle, in place; false unless positive definite.
bool Factor(int32_t dim, std::vector<double>& m) {
  for (int32_t j = 0; j < dim; ++j) {
    double* row_j = &m[int64_t{j} * dim];
    for (int32_t i = 0; i <= j; ++i) {
      const double* row_i = &m[int64_t{i} * dim];
      double sum = row_j[i];
      for (int32_t k = 0; k < i; ++k) sum -= row_j[k] * row_i[k];
      if (i < j) {
        row_j[i] = sum / row_i[i];
      } else if (!(sum > 0.0)) {
        return false;
      } else {
        row_j[i] = std::sqrt(sum);
      }
    }
  }
  return true;
}

}  // namespace

KeyFeedback::KeyFeedback(int32_t num_layers, int32_t num_heads, int32_t num_kv_heads,
                         int32_t head_dim)
    : num_heads_(num_heads),
      num_kv_heads_(num_kv_heads),
      head_dim_(head_dim),
      moments_(static_cast<size_t>(num_layers) * num_kv_heads) {
  for (auto& moments : moments_) moments.assign(int64_t{head_dim} * head_dim, 0.0);
}

void KeyFeedback::Observe(int32_t layer, const float* q, int64_t q_stride, int64_t num_rows) {
  const int32_t group = num_heads_ / num_kv_heads_;
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int32_t head = 0; head < num_heads_; ++head) {
      const float* x = q + row * q_stride + int64_t{head} * head_dim_;
      double* moments = moments_[int64_t{layer} * num_kv_heads_ + head / group].data();
      for (int32_t i = 0; i < head_dim_; ++i, moments += head_dim_) {
        for (int32_t j = 0; j < head_dim_; ++j) moments[j] += static_cast<double>(x[i]) * x[j];
      }
    }
  }
}

void KeyFeedback::BuildHead(const float* inv_freq, int32_t rope_dim, int32_t max_positions,
                            std::vector<double>& moments, float* matrix) const {
  const int32_t dim = head_dim_;
  AverageTurns(inv_freq, rope_dim, max_positions, dim, moments);
  double trace = 0.0;
  for (int32_t i = 0; i < dim; ++i) trace += moments[int64_t{i} * dim + i];
  for (int32_t i = 0; i < dim; ++i) moments[int64_t{i} * dim + i] += kDamping * trace / dim;
  for (int32_t i = 0; i < dim; ++i) RotateVector(dim, 1, &moments[int64_t{i} * dim]);
  for (int32_t i = 0; i < dim; ++i) RotateVector(dim, dim, &moments[i]);
  // What a damaged model yields may be zero or NaN: then there is no feedback.
  if (!Factor(dim, moments)) return;
  for (int32_t j = 0; j < dim; ++j) {
    for (int32_t i = 0; i < j; ++i) {
      matrix[int64_t{j} * dim + i] =
          static_cast<float>(moments[int64_t{j} * dim + i] / moments[int64_t{i} * dim + i]);
    }
  }
}

void KeyFeedback::Build(const float* inv_freq, int32_t rope_dim, int32_t max_positions) {
  const int64_t size = int64_t{head_dim_} * head_dim_;
  matrices_.assign(moments_.size() * size, 0.0f);
  for (size_t head = 0; head < moments_.size(); ++head) {
    BuildHead(inv_freq, rope_dim, max_positions, moments_[head], &matrices_[head * size]);
  }
  moments_.clear();
  moments_.shrink_to_fit();
  is_built_ = true;
}

const float* KeyFeedback::Matrices(int32_t layer) const {
  if (!is_built_) return nullptr;
  return matrices_.data() + int64_t{layer} * num_kv_heads_ * head_dim_ * head_dim_;
}

}  // namespace tandem::cpu
