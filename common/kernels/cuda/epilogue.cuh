// What becomes of a product before it leaves the chip: shared by the kernels for few and
// for many rows, so that both leave the same bits.
#pragma once

#include <cfloat>

#include "common/kernels/cuda/logit_rank.cuh"
#include "common/kernels/cuda/matmul.h"
#include "common/kernels/cuda/tile_dot.cuh"

namespace tandem::cuda {

// A product in shared memory: eight rows of activations by `num_outputs` outputs.
template <int kOutputs>
struct ProductTile {
  static constexpr int kStride = kOutputs + 4;  // spreads rows over the banks
  float values[8][kStride];
};

__device__ __forceinline__ float WarpSum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}

// 1 / rms of a row, from the sums of squares of its blocks of 32. Called by a whole warp.
__device__ __forceinline__ float InverseRms(const RmsScale& norm, int64_t row, int lane) {
  if (norm.square_sums == nullptr) return 1.0f;
  float sum = 0.0f;
  for (int i = lane; i < norm.num_blocks; i += 32) {
    sum += norm.square_sums[row * norm.num_blocks + i];
  }
  return rsqrtf(__fmaf_rn(WarpSum(sum), norm.inverse_dim, norm.epsilon));
}

// The largest magnitude in a warp; NaN where one is.
__device__ __forceinline__ float WarpMaxMagnitude(float value) {
  const uint32_t bits = __float_as_uint(value) & 0x7fffffffu;  // ordered like magnitudes
#if __CUDA_ARCH__ >= 800
  return __uint_as_float(__reduce_max_sync(0xffffffffu, bits));
#else
  uint32_t largest = bits;
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
  }
  return __uint_as_float(largest);
#endif
}
__device__ __forceinline__ int WarpSum(int value) {
#if __CUDA_ARCH__ >= 800
  return __reduce_add_sync(0xffffffffu, value);
#else
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
#endif
}

// Writes 32 consecutive columns of a row, one a lane, as int8 with one scale. A block that
// is not finite gets a scale that is not either, so that it is seen.
__device__ __forceinline__ void QuantizeBlock(const Activations& out, int64_t row, int col,
                                              float value, int lane) {
  const float absmax = WarpMaxMagnitude(value);
  const float inverse = absmax > 0.0f ? 127.0f / absmax : 0.0f;
  const int code = __float2int_rn(fminf(fmaxf(value * inverse, -127.0f), 127.0f));
  out.codes[out.CodeAt(row, col + lane)] = static_cast<int8_t>(code);
  const int sum = out.sums != nullptr ? WarpSum(code) : 0;
  if (lane == 0) {
    const float scale = absmax * (1.0f / 127.0f);
    const int64_t index = out.ScaleAt(row, col / kScaleCols);
    out.scales[index] = scale;
    if (out.sums != nullptr) out.sums[index] = scale * static_cast<float>(sum);
  }
}

// Leaves the updated residual and what the next norm and matrix need: the sums of squares, and
// the row times the norm's weights, quantized. The norm's own factor comes out of the
// quantization and is applied to the product (InverseRms).
__device__ __forceinline__ void StoreResidual(const ResidualOutput& out, int64_t row, int col,
                                              float updated, int lane) {
  out.residual[row * out.dim + col + lane] = updated;
  QuantizeBlock(out.quantized, row, col, updated * out.norm_weights[col + lane], lane);
  const float square_sum = WarpSum(updated * updated);
  if (lane == 0) out.square_sums[row * (out.dim / 32) + col / 32] = square_sum;
}

// The ends of a product. Each is called by all warps of a block, `kOutputs` outputs of
// eight rows at a time; `inverse_rms` [8].

struct StoreEnd {
  static constexpr int kOutputs = 16;
  FloatOutput out;

  __device__ void Apply(const float* values, int stride, const float* inverse_rms, int row_group,
                        int num_rows, int first_output, int warp, int num_warps, int lane) const {
    for (int row = warp * 2 + lane / 16; row < num_rows; row += num_warps * 2) {
      const int output = first_output + lane % 16;
      const int64_t at = int64_t{row_group} * 8 + row;
      const float value = values[row * stride + lane % 16] * inverse_rms[row];
      if (output < out.num_outputs) out.values[at * out.stride + out.first_col + output] = value;
      if (out.choices != nullptr) Raise(at, output, value, lane);
    }
  }

  // By the 16 lanes that have a row's outputs.
  __device__ __forceinline__ void Raise(int64_t row, int id, float logit, int lane) const {
    // -0 and 0 are equal.
    unsigned long long best = id < out.num_ids ? Rank(logit + 0.0f, id) : 0;
#pragma unroll
    for (int offset = 8; offset > 0; offset /= 2) {
      const auto other = __shfl_xor_sync(0xffffu << (lane & 16), best, offset);
      best = other > best ? other : best;
    }
    auto* rank = reinterpret_cast<unsigned long long*>(&out.choices[row].rank);
    // Few outputs raise it: the others only look.
    if (lane % 16 == 0 && best > __ldcg(rank)) atomicMax(rank, best);
  }
};

struct ResidualEnd {
  static constexpr int kOutputs = 32;
  ResidualOutput out;

  __device__ void Apply(const float* values, int stride, const float*, int row_group, int num_rows,
                        int first_output, int warp, int num_warps, int lane) const {
    for (int row = warp; row < num_rows; row += num_warps) {
      const int64_t at = int64_t{row_group} * 8 + row;
      const float updated =
          out.residual[at * out.dim + first_output + lane] + values[row * stride + lane];
      StoreResidual(out, at, first_output, updated, lane);
    }
  }
};

// Outputs come as 32 of the gate followed by the same 32 of up.
struct GatedEnd {
  static constexpr int kOutputs = 64;
  Activations out;

  __device__ void Apply(const float* values, int stride, const float* inverse_rms, int row_group,
                        int num_rows, int first_output, int warp, int num_warps, int lane) const {
    for (int row = warp; row < num_rows; row += num_warps) {
      const float gate = values[row * stride + lane] * inverse_rms[row];
      const float up = values[row * stride + 32 + lane] * inverse_rms[row];
      const float gated = __fdividef(gate, 1.0f + __expf(-gate)) * up;
      QuantizeBlock(out, int64_t{row_group} * 8 + row, first_output / 2, gated, lane);
    }
  }
};

}  // namespace tandem::cuda
