#include "common/kernels/cuda/epilogue.cuh"
#include "common/kernels/cuda/exp_sums.cuh"
#include "common/kernels/cuda/launch.cuh"
#include "common/kernels/cuda/step_rows.h"

namespace tandem::cuda {
namespace {

// Element (row, col) of a matrix, as UnpackElement of matrix_pack.h.
__device__ float Element(const DeviceMatrix& matrix, int64_t row, int col) {
  const uint8_t* chunk = matrix.chunks + (row / kTileRows * matrix.num_chunks + col / kChunkCols) *
                                             ChunkBytes(matrix.format);
  const int g = row % 8;
  const int row_half = row % 16 / 8;
  const int tile = col % kChunkCols / kTileCols;
  const int half = col % kTileCols / 32;
  const int lane = g * 4 + col % 32 / 8;
  const int i = col % 8;
  const uint8_t* scales =
      chunk + ChunkCodeBytes(matrix.format) + g * GroupScaleBytes(matrix.format);
  const __half* halves = reinterpret_cast<const __half*>(scales);
  const int block = (tile * 2 + row_half) * 2 + half;
  if (matrix.format == MatrixFormat::kCode8) {
    const int8_t code =
        static_cast<int8_t>(chunk[tile * 1024 + half * 512 + lane * 16 + row_half * 8 + i]);
    return code * __half2float(halves[block]);
  }
  const int code =
      Code4At(chunk + tile * 512 + lane * 16 + (half * 2 + row_half) * 4, i, matrix.format);
  switch (matrix.format) {
    case MatrixFormat::kNf4:
      return matrix.codebook[code] * __fmaf_rn(matrix.row_scales[2 * row + 1],
                                               static_cast<float>(scales[tile * 2 + row_half]),
                                               matrix.row_scales[2 * row]);
    case MatrixFormat::kAffine4:
      return __fmaf_rn(static_cast<float>(code), __half2float(halves[2 * block]),
                       __half2float(halves[2 * block + 1]));
    case MatrixFormat::kLinear4:
      return static_cast<float>(code) * __half2float(halves[block]);
    default:
      return matrix.codebook[code] * __half2float(halves[block]);
  }
}

__global__ void EmbedKernel(EmbedCall call) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int64_t row = blockIdx.x;
  if (row < call.max_logits_rows && blockIdx.y == 0 && threadIdx.x == 0) {
    call.choices[row].rank = 0;
  }
  if (row >= call.counts->num_rows) return;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int32_t token_id = call.token_ids[row];
  for (int col = (blockIdx.y * (blockDim.x / 32) + warp) * 32; col < call.out.dim;
       col += gridDim.y * blockDim.x) {
    StoreResidual(call.out, row, col, Element(call.embedding, token_id, col + lane),
                  call.out.norm_weights[col + lane], lane);
  }
  if (blockIdx.y > 0) return;
  const float position = static_cast<float>(call.positions[row]);
  for (int i = threadIdx.x; i < call.rope_dim / 2; i += blockDim.x) {
    float2 angle;
    sincosf(position * call.inverse_frequencies[i], &angle.y, &angle.x);
    call.rope[row * (call.rope_dim / 2) + i] = angle;
  }
}

__global__ void GatherKernel(GatherCall call) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int64_t to = blockIdx.x;
  if (to >= call.counts->num_logits_rows) return;
  const int64_t from = call.row_map[to];
  const int cols = call.from.padded_cols;
  for (int i = threadIdx.x * 16; i < cols; i += blockDim.x * 16) {
    // ActivationIndex keeps columns of 64 together.
    const int in_tile = i % kTileCols;
    const int first = i / kTileCols * kTileCols;
    *reinterpret_cast<uint4*>(call.to.codes + call.to.CodeAt(to, first) + in_tile) =
        *reinterpret_cast<const uint4*>(call.from.codes + call.from.CodeAt(from, first) + in_tile);
  }
  for (int i = threadIdx.x; i < cols / kScaleCols; i += blockDim.x) {
    const int64_t target = call.to.ScaleAt(to, i);
    const int64_t source = call.from.ScaleAt(from, i);
    call.to.scales[target] = call.from.scales[source];
    call.to.sums[target] = call.from.sums[source];
  }
  for (int i = threadIdx.x; i < call.num_blocks; i += blockDim.x) {
    call.square_sums_to[to * call.num_blocks + i] =
        call.square_sums_from[from * call.num_blocks + i];
  }
}

__global__ __launch_bounds__(kExpThreads) void ExpSumsKernel(ExpSumsCall call) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  if (blockIdx.y < *call.num_rows) StoreExpSum(call, blockIdx.y, blockIdx.x);
}

}  // namespace

cudaError_t LaunchEmbed(const EmbedCall& call, int32_t max_rows, const LaunchOptions& options) {
  const int blocks = max_rows > call.max_logits_rows ? max_rows : call.max_logits_rows;
  return Launch(EmbedKernel, dim3(blocks, 8), 512, 0, options, call);
}

cudaError_t LaunchGather(const GatherCall& call, int32_t max_rows, const LaunchOptions& options) {
  return Launch(GatherKernel, dim3(max_rows), 256, 0, options, call);
}

cudaError_t LaunchExpSums(const ExpSumsCall& call, int32_t max_rows, const LaunchOptions& options) {
  return Launch(ExpSumsKernel, dim3(kExpSums, max_rows), kExpThreads, 0, options, call);
}

}  // namespace tandem::cuda
