// y = x * W^T for few or many rows of x, with W packed.
//
// Batch-invariant: row r of the result has the same bits whether x has one row or
// hundreds, and for any number of threads. Each output adds its blocks of 32 in
// ascending order: acc = fma(scale_w * scale_x, integer dot, acc), plus the offset
// term in the same order; the integer dot is exact, so its own order is free.
#pragma once

#include <cstdint>
#include <memory>

#include "common/kernels/cpu/packed_matrix.h"
#include "common/kernels/cpu/thread_pool.h"

namespace tandem::cpu {

// Activations of one step, as floats and as int8 in blocks of 32 with a float scale
// and the sum of the block's codes. Owns its memory: made once, reused by each step.
class Activations {
 public:
  // Room for max_rows rows of max_cols values.
  Activations(int64_t max_rows, int64_t max_cols);

  // Takes rows x [num_rows, num_cols] (row stride num_cols) for the MatMul calls that
  // follow; `x` must live until then. Quantizes row by row, in parallel.
  // scale = absmax / 127, code = round-half-even(x / scale).
  void Set(const float* x, int64_t num_rows, int64_t num_cols, ThreadPool& pool);

  int64_t num_rows() const { return num_rows_; }
  int64_t num_cols() const { return num_cols_; }
  const float* floats() const { return x_; }
  const int8_t* codes(int64_t row) const { return codes_.get() + row * num_cols_; }
  // [num_cols / 32]
  const float* scales(int64_t row) const { return scales_.get() + row * (num_cols_ / 32); }
  const int32_t* sums(int64_t row) const { return sums_.get() + row * (num_cols_ / 32); }

 private:
  int64_t max_values_;
  int64_t num_rows_ = 0;
  int64_t num_cols_ = 0;
  const float* x_ = nullptr;
  std::unique_ptr<int8_t[]> codes_;
  std::unique_ptr<float[]> scales_;
  std::unique_ptr<int32_t[]> sums_;
};

struct MatMulArgs {
  const PackedMatrix* weight = nullptr;
  float* y = nullptr;        // [x.num_rows, y_stride], the first weight->num_rows of each row
  int64_t y_stride = 0;      // floats from row to row of y
  bool accumulate = false;   // y += instead of y = (the residual)
};

// Multiplies one input by up to 4 matrices in one parallel loop (Q, K and V; gate and
// up). Requires weight->num_cols == x.num_cols for each.
void MatMul(const Activations& x, const MatMulArgs* args, int32_t num_args, ThreadPool& pool);

// The specification, in plain C++ and double precision over the packed values.
void MatMulRef(const Activations& x, const MatMulArgs& args);

}  // namespace tandem::cpu
