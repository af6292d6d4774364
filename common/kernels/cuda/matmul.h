// Products of quantized weights with rows of quantized activations, and what is fused
// behind them. All pointers are device memory, borrowed; nothing is allocated.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/kernels/cuda/activations.h"
#include "common/kernels/cuda/device_matrix.h"
#include "common/kernels/cuda/row_choice.h"

namespace tandem::cuda {

// Numbers of the present step, in device memory, so that one graph serves many steps.
struct StepCounts {
  int32_t num_rows;
  int32_t num_row_groups;  // of attention
  int32_t num_logits_rows;
};

// The factor that RMS norm takes out of a row of `num_blocks` * 32 columns. Null pointer: 1.
struct RmsScale {
  const float* square_sums = nullptr;  // [rows][num_blocks]
  int32_t num_blocks = 0;
  float inverse_dim = 0.0f;
  float epsilon = 0.0f;
};

// out[row][first_col + output] = product * RMS factor
struct FloatOutput {
  float* values = nullptr;
  int64_t stride = 0;
  int32_t first_col = 0;
  int32_t num_outputs = 0;
  // Of a head: [rows], each rank rises to the greatest of the row's first `num_ids` outputs. It
  // is cleared before, by the step's first kernel.
  RowChoice* choices = nullptr;
  int32_t num_ids = 0;
};

// residual[row][output] += product, and the input of the next product.
struct ResidualOutput {
  float* residual = nullptr;  // [rows][dim]
  int32_t dim = 0;            // a multiple of 32
  const float* norm_weights = nullptr;
  float* square_sums = nullptr;  // [rows][dim / 32]
  Activations quantized;         // residual * norm_weights
};

// Weights that the next kernel reads: asked for when this one leaves memory idle, so that
// they are in the second cache when it starts. `num_regions` pieces of `region_bytes` (a
// multiple of 16), `stride` apart. Before sm_90 nothing is done.
struct WeightsAhead {
  const uint8_t* data = nullptr;
  int32_t num_regions = 0;
  int32_t region_bytes = 0;
  int64_t stride = 0;
};

// What every product has.
struct MatmulInput {
  DeviceMatrix weights;
  Activations x;
  RmsScale norm;
  // Rows of x; those beyond are not touched. Read when the kernel runs, maybe before the one in
  // front of it has ended: written before the step's first kernel.
  const int32_t* num_rows = nullptr;
  WeightsAhead ahead;
};

enum class MatmulEnd : int32_t { kFloat = 0, kResidual = 1, kGated = 2 };

struct MatmulCall {
  MatmulInput input;
  MatmulEnd end = MatmulEnd::kFloat;
  FloatOutput float_output;        // kFloat
  ResidualOutput residual_output;  // kResidual
  Activations gated_output;        // kGated: silu(gate) * up
};

struct LaunchOptions {
  cudaStream_t stream = nullptr;
  bool may_overlap = false;  // programmatic dependent launch behind the previous kernel
};

inline constexpr int32_t kMaxFewRows = 512;

// Into how many slices of columns a sum is cut, the same for few rows and for many.
inline constexpr int32_t kFloatSlices = 8;
inline constexpr int32_t kManyOutputsSlices = 4;  // kFloat from kManyOutputs on: a head
inline constexpr int32_t kManyOutputs = 16384;
inline constexpr int32_t kResidualSlices = 8;
inline constexpr int32_t kGatedSlices = 2;

// For at most `max_rows` <= kMaxFewRows rows: each 32 of them read the weights once; 1 to 8 rows
// cost the same.
cudaError_t LaunchMatmulFewRows(const MatmulCall& call, int32_t max_rows,
                                const LaunchOptions& options);

// For any number of rows, the same bits: blocks of kManyRowsOutputs outputs and 32 or 64 rows.
cudaError_t LaunchMatmulManyRows(const MatmulCall& call, int32_t max_rows,
                                 const LaunchOptions& options);

inline constexpr int32_t kManyRowsOutputs = 128;
constexpr int32_t RowsOfManyRowsBlock(int32_t max_rows) { return max_rows <= 32 ? 32 : 64; }

// Which of them is the faster one, found on an H100 with 8B and 1B shapes: large blocks, where
// there are enough to go round.
constexpr bool WantsManyRows(int32_t num_outputs, int32_t max_rows, int32_t num_processors) {
  if (max_rows <= 16) return false;
  const int32_t block_rows = RowsOfManyRowsBlock(max_rows);
  const int64_t blocks = int64_t{(max_rows + block_rows - 1) / block_rows} *
                         ((num_outputs + kManyRowsOutputs - 1) / kManyRowsOutputs);
  return max_rows > kMaxFewRows || 2 * blocks >= int64_t{3} * num_processors;
}

}  // namespace tandem::cuda
