// The two ends of a forward pass: token ids to rows, and logits to the likeliest token.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/kernels/cuda/device_matrix.h"
#include "common/kernels/cuda/matmul.h"

namespace tandem::cuda {

inline constexpr int32_t kExpSums = 14;

// What is known of a row of logits without the row.
struct RowChoice {
  // The bits of the greatest logit in an order as that of the floats, then the complement of
  // its id.
  uint64_t rank;
  float exp_sums[kExpSums];  // of exp(logit - greatest logit), the row in as many parts
};

struct EmbedCall {
  // In device memory, or in host memory that the device reads.
  DeviceMatrix embedding;
  const int32_t* token_ids = nullptr;  // [rows]
  const int32_t* positions = nullptr;  // [rows]
  const StepCounts* counts = nullptr;
  ResidualOutput out;                          // = the row
  const float* inverse_frequencies = nullptr;  // [rope_dim / 2]
  int32_t rope_dim = 0;
  float2* rope = nullptr;        // [rows][rope_dim / 2] cosine, sine
  RowChoice* choices = nullptr;  // [max logits rows], cleared for LaunchGreatest
  int32_t max_logits_rows = 0;
};

cudaError_t LaunchEmbed(const EmbedCall& call, int32_t max_rows, const LaunchOptions& options);

// Copies the rows that want logits: row r of `to` is row row_map[r] of `from`.
struct GatherCall {
  const int32_t* row_map = nullptr;  // [logits rows]
  const StepCounts* counts = nullptr;
  Activations from;
  Activations to;
  const float* square_sums_from = nullptr;
  float* square_sums_to = nullptr;
  int32_t num_blocks = 0;  // of a row's square sums
};

cudaError_t LaunchGather(const GatherCall& call, int32_t max_rows, const LaunchOptions& options);

// The id of the greatest logit of each row, the smallest of equals. A row that has a NaN gives
// some id.
struct GreatestCall {
  const float* logits = nullptr;  // [rows][stride]
  int64_t stride = 0;
  int32_t num_ids = 0;  // the first of each row that count
  const int32_t* num_rows = nullptr;
  RowChoice* choices = nullptr;  // [rows], the ranks cleared before
};

cudaError_t LaunchGreatest(const GreatestCall& call, int32_t max_rows,
                           const LaunchOptions& options);

// After it: the sums of exp(logit - greatest logit), in a fixed order.
cudaError_t LaunchExpSums(const GreatestCall& call, int32_t max_rows, const LaunchOptions& options);

}  // namespace tandem::cuda
