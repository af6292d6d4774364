// The small operations of a transformer layer. All act row by row: a row's result
// does not depend on the others.
#pragma once

#include <cstdint>

#include "common/kernels/cpu/thread_pool.h"

namespace tandem::cpu {

// out[r] = x[r] / sqrt(mean(x[r]^2) + epsilon) * weight, for rows of `dim`.
// x and out may be the same.
void RmsNorm(const float* x, const float* weight, float epsilon, int64_t num_rows, int64_t dim,
             float* out, ThreadPool& pool);

// Cosine and sine of position * inv_freq[i] for each row: what all layers of a step share.
// Angles are made in double: at position 100,000 a float has lost 0.004 of a radian.
void RopeAngles(const int32_t* positions, int64_t num_rows, const float* inv_freq,
                int32_t num_pairs, float* cosines, float* sines);

// Rotates the pairs of each head by position. GGUF's llama tensors are stored for
// adjacent pairs: dims 2i and 2i+1 turn by position * inv_freq[i].
struct RopeArgs {
  float* x = nullptr;              // [num_rows, num_heads * head_dim], in place
  const float* cosines = nullptr;  // [num_rows, rope_dim / 2], from RopeAngles
  const float* sines = nullptr;    // likewise
  int64_t num_rows = 0;
  int64_t x_stride = 0;
  int32_t num_heads = 0;
  int32_t head_dim = 0;
  int32_t rope_dim = 0;  // even, at most head_dim; dims beyond it stay
};
void Rope(const RopeArgs& args, ThreadPool& pool);

// out = silu(gate) * up over num_rows x dim; out may be gate or up.
void SiluMul(const float* gate, const float* up, int64_t num_rows, int64_t dim, float* out,
             ThreadPool& pool);

// Index of the largest of n values, the lowest index on ties; -1 when any is NaN or
// all are -inf. n >= 1.
int64_t ArgMax(const float* x, int64_t n);

}  // namespace tandem::cpu
