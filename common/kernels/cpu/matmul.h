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

// 32 neighbouring activations of one row: x[i] is about scale * codes[i]. The rest is what
// products with biased weight codes start from, or add.
struct ActivationBlock {
  int8_t codes[32];
  float scale;             // absmax / 127; NaN when a value is not finite
  float scaled_sum;        // scale * sum of the codes: times a block's min
  int32_t minus_8_sums;    // -8 * sum of the codes: for codes in [0, 15] around 8
  int32_t minus_128_sums;  // -128 * sum of the codes: for signed bytes plus 128
};

// Activations of one step, as floats and as ActivationBlocks. Owns its memory: made once,
// reused by each step. Rows are kept in tiles of up to kTileRows: for each block of columns
// the blocks of all rows of the tile, so that a product reads one short run of memory.
class Activations {
 public:
  static constexpr int64_t kTileRows = 8;

  // Room for max_rows rows of max_cols values.
  Activations(int64_t max_rows, int64_t max_cols);

  // Takes rows x [num_rows, num_cols] (row stride num_cols) for the MatMul calls that
  // follow; `x` must live until then. Quantizes row by row, in parallel.
  // code = round-half-even(x / scale).
  void Set(const float* x, int64_t num_rows, int64_t num_cols, ThreadPool& pool);

  int64_t num_rows() const { return num_rows_; }
  int64_t num_cols() const { return num_cols_; }
  const float* floats() const { return x_; }

  // Rows of the tile that starts at `first_row`, a multiple of kTileRows.
  int64_t tile_rows(int64_t first_row) const {
    const int64_t rows = num_rows_ - first_row;
    return rows < kTileRows ? rows : kTileRows;
  }
  // [num_cols / 32, tile_rows]
  const ActivationBlock* tile(int64_t first_row) const {
    return blocks_.get() + first_row * (num_cols_ / 32);
  }
  const ActivationBlock& block(int64_t row, int64_t index) const {
    const int64_t first_row = row / kTileRows * kTileRows;
    return tile(first_row)[index * tile_rows(first_row) + row - first_row];
  }

 private:
  int64_t num_rows_ = 0;
  int64_t num_cols_ = 0;
  const float* x_ = nullptr;
  std::unique_ptr<ActivationBlock[]> blocks_;
};

struct MatMulArgs {
  const PackedMatrix* weight = nullptr;
  float* y = nullptr;       // [x.num_rows, y_stride], the first weight->num_rows of each row
  int64_t y_stride = 0;     // floats from row to row of y
  bool accumulate = false;  // y += instead of y = (the residual)
};

// Multiplies one input by up to 4 matrices in one parallel loop (Q, K and V; gate and
// up). Requires weight->num_cols == x.num_cols for each.
void MatMul(const Activations& x, const MatMulArgs* args, int32_t num_args, ThreadPool& pool);

// The specification, in plain C++ and double precision over the packed values.
void MatMulRef(const Activations& x, const MatMulArgs& args);

}  // namespace tandem::cpu
