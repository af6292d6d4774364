// The two ends of a forward pass: token ids to rows, and logits to the likeliest token.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/kernels/cuda/device_matrix.h"
#include "common/kernels/cuda/matmul.h"

namespace tandem::cuda {

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
  RowChoice* choices = nullptr;  // [max logits rows], their ranks cleared
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

// Rows of logits whose greatest is known.
struct ExpSumsCall {
  const float* logits = nullptr;  // [rows][stride]
  int64_t stride = 0;
  int32_t num_ids = 0;  // the first of each row that count
  const int32_t* num_rows = nullptr;
  RowChoice* choices = nullptr;  // [rows]: sums go beside the ranks
};

// The sums of exp(logit - greatest logit), in a fixed order.
cudaError_t LaunchExpSums(const ExpSumsCall& call, int32_t max_rows, const LaunchOptions& options);

}  // namespace tandem::cuda
