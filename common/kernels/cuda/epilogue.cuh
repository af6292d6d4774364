// What becomes of a product before it leaves the chip: shared by the kernels for few and
// for many rows, so that both leave the same bits.
#pragma once

#include <cfloat>

#include "common/kernels/cuda/logit_rank.cuh"
#include "common/kernels/cuda/matmul.h"
#include "common/kernels/cuda/tile_dot.cuh"

namespace tandem::cuda {

// A product in shared memory, rows by outputs, as the sums of `kSlices` slices of its columns.
template <int kSlices, int kRows, int kOutputs>
struct Product {
  static constexpr int kStride = kOutputs + 4;  // spreads rows over the banks
  float slices[kSlices][kRows][kStride];

  __device__ __forceinline__ float Sum(int row, int output) const {
    float sum = slices[0][row][output];
#pragma unroll
    for (int slice = 1; slice < kSlices; ++slice) sum += slices[slice][row][output];
    return sum;
  }
};

__device__ __forceinline__ float WarpSum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}

// 1 / rms of a row, from the sums of squares of its blocks of 32. A warp reads them, a lane some
// each, long before it needs them.
__device__ __forceinline__ float LaneSquares(const RmsScale& norm, int64_t row, int lane) {
  if (norm.square_sums == nullptr) return 0.0f;
  float sum = 0.0f;
#pragma unroll 4
  for (int i = lane; i < norm.num_blocks; i += 32) {
    sum += norm.square_sums[row * norm.num_blocks + i];
  }
  return sum;
}
__device__ __forceinline__ float InverseRms(const RmsScale& norm, float lane_squares) {
  if (norm.square_sums == nullptr) return 1.0f;
  return rsqrtf(__fmaf_rn(WarpSum(lane_squares), norm.inverse_dim, norm.epsilon));
}

// Ordered like magnitudes; NaN is the largest.
__device__ __forceinline__ uint32_t MagnitudeBits(float value) {
  return __float_as_uint(value) & 0x7fffffffu;
}
// The largest magnitude in a warp; NaN where one is.
__device__ __forceinline__ float WarpMaxMagnitude(float value) {
#if __CUDA_ARCH__ >= 800
  return __uint_as_float(__reduce_max_sync(0xffffffffu, MagnitudeBits(value)));
#else
  uint32_t largest = MagnitudeBits(value);
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

// The int8 codes of a block of 32 columns, from its largest magnitude. A block that is not finite
// gets a scale that is not either, so that it is seen.
struct BlockCodes {
  float absmax;
  float codes_per_unit;

  // Where all is next to nothing, 127 / absmax may be infinite: the codes are 0.
  __device__ __forceinline__ explicit BlockCodes(float largest) : absmax(largest) {
    codes_per_unit = largest > 1e-30f ? __fdividef(127.0f, largest) : 0.0f;
  }
  __device__ __forceinline__ int Of(float value) const {
    return __float2int_rn(fminf(fmaxf(value * codes_per_unit, -127.0f), 127.0f));
  }
  // `block`: of the row. `sum`: of the block's codes.
  __device__ __forceinline__ void StoreScale(const Activations& out, int64_t row, int block,
                                             int sum) const {
    const float scale = absmax * (1.0f / 127.0f);
    const int64_t index = out.ScaleAt(row, block);
    out.scales[index] = scale;
    if (out.sums != nullptr) out.sums[index] = scale * static_cast<float>(sum);
  }
};

// Writes 32 consecutive columns of a row, one a lane, if the row `exists`.
__device__ __forceinline__ void QuantizeBlock(const Activations& out, int64_t row, int col,
                                              float value, int lane, bool exists = true) {
  const BlockCodes codes(WarpMaxMagnitude(value));
  const int code = codes.Of(value);
  const int sum = out.sums != nullptr ? WarpSum(code) : 0;
  if (!exists) return;
  out.codes[out.CodeAt(row, col + lane)] = static_cast<int8_t>(code);
  if (lane == 0) codes.StoreScale(out, row, col / kScaleCols, sum);
}

// Leaves the updated residual and what the next norm and matrix need: the sums of squares, and
// the row times the norm's weights, quantized. The norm's own factor comes out of the
// quantization and is applied to the product (InverseRms).
__device__ __forceinline__ void StoreResidual(const ResidualOutput& out, int64_t row, int col,
                                              float updated, float norm_weight, int lane,
                                              bool exists = true) {
  QuantizeBlock(out.quantized, row, col, updated * norm_weight, lane, exists);
  const float square_sum = WarpSum(updated * updated);
  if (!exists) return;
  out.residual[row * out.dim + col + lane] = updated;
  if (lane == 0) out.square_sums[row * (out.dim / 32) + col / 32] = square_sum;
}

// The ends of a product. Apply is called by a warp for kOutputs outputs of kRowsPerWarp rows, each
// of 32 / kRowsPerWarp lanes: `row` and `at` are a lane's, the row in the product and in the step.
// Rows that do not exist are computed and not stored, so that several rows are under way at once.
// Fetched is what a lane needs of memory: it is read long before.

struct StoreEnd {
  static constexpr int kOutputs = 16;
  static constexpr int kRowsPerWarp = 2;
  struct Fetched {};
  FloatOutput out;

  __device__ __forceinline__ Fetched Fetch(int64_t, int, int, bool) const { return {}; }
  template <class P>
  __device__ __forceinline__ void Apply(const P& product, int row, int first, float inverse_rms,
                                        int64_t at, int first_output, const Fetched&, int lane,
                                        bool exists) const {
    const int output = first_output + lane % 16;
    const float value = product.Sum(row, first + lane % 16) * inverse_rms;
    if (exists && output < out.num_outputs) {
      out.values[at * out.stride + out.first_col + output] = value;
    }
    if (out.choices != nullptr) Raise(at, output, value, lane, exists);
  }

  // By the 16 lanes that have a row's outputs.
  __device__ __forceinline__ void Raise(int64_t row, int id, float logit, int lane,
                                        bool exists) const {
    // -0 and 0 are equal.
    unsigned long long best = id < out.num_ids ? Rank(logit + 0.0f, id) : 0;
#pragma unroll
    for (int offset = 8; offset > 0; offset /= 2) {
      const auto other = __shfl_xor_sync(0xffffffffu, best, offset);
      best = other > best ? other : best;
    }
    if (!exists || lane % 16 != 0) return;
    auto* rank = reinterpret_cast<unsigned long long*>(&out.choices[row].rank);
    // Few outputs raise it: the others only look.
    if (best > __ldcg(rank)) atomicMax(rank, best);
  }
};

struct ResidualEnd {
  static constexpr int kOutputs = 32;
  static constexpr int kRowsPerWarp = 1;
  struct Fetched {
    float residual;
    float norm_weight;
  };
  ResidualOutput out;

  __device__ __forceinline__ Fetched Fetch(int64_t at, int first_output, int lane,
                                           bool exists) const {
    const int output = first_output + lane;
    if (!exists || output >= out.dim) return {0.0f, 0.0f};
    return {out.residual[at * out.dim + output], out.norm_weights[output]};
  }
  template <class P>
  __device__ __forceinline__ void Apply(const P& product, int row, int first, float, int64_t at,
                                        int first_output, const Fetched& fetched, int lane,
                                        bool exists) const {
    const float updated = fetched.residual + product.Sum(row, first + lane);
    StoreResidual(out, at, first_output, updated, fetched.norm_weight, lane, exists);
  }
};

// Outputs come as 32 of the gate followed by the same 32 of up.
struct GatedEnd {
  static constexpr int kOutputs = 64;
  static constexpr int kRowsPerWarp = 1;
  struct Fetched {};
  Activations out;

  __device__ __forceinline__ Fetched Fetch(int64_t, int, int, bool) const { return {}; }
  template <class P>
  __device__ __forceinline__ void Apply(const P& product, int row, int first, float inverse_rms,
                                        int64_t at, int first_output, const Fetched&, int lane,
                                        bool exists) const {
    const float gate = product.Sum(row, first + lane) * inverse_rms;
    const float up = product.Sum(row, first + 32 + lane) * inverse_rms;
    const float gated = __fdividef(gate, 1.0f + __expf(-gate)) * up;
    QuantizeBlock(out, at, first_output / 2, gated, lane, exists);
  }
};

}  // namespace tandem::cuda
