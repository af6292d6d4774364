// Many rows (prompts, large batches): each weight that is decoded meets 64 rows. The sums
// are cut and added as with few rows, so that both give the same bits.
#include "common/kernels/cuda/epilogue.cuh"
#include "common/kernels/cuda/launch.cuh"

namespace tandem::cuda {
namespace {

constexpr int kWarps = 8;                          // of 16 outputs each
constexpr int kBlockOutputs = kWarps * kTileRows;  // 128
constexpr int kGroups = 8;                         // of 8 rows
constexpr int kBlockRows = kGroups * 8;
constexpr int kThreads = kWarps * 32;
constexpr int kChunkBlocks = kChunkCols / kScaleCols;

// Activations of one chunk. Rows are padded so that eight lanes meet all banks.
struct Stage {
  uint8_t codes[kBlockRows][kChunkCols + 64];
  float scales[kGroups][kChunkBlocks][8];
  float sums[kGroups][kChunkBlocks][8];
};

// A thread's part of a chunk on its way to shared memory.
struct StageRegisters {
  static constexpr int kCodeLoads = kBlockRows * kChunkCols / 16 / kThreads;  // 4
  uint4 codes[kCodeLoads];
  float2 scales;
  float2 sums;

  template <MatrixFormat F>
  __device__ __forceinline__ void Load(const Activations& x, int first_group, int chunk) {
#pragma unroll
    for (int i = 0; i < kCodeLoads; ++i) {
      const int item = i * kThreads + threadIdx.x;
      const int64_t row = first_group * 8 + item / (kChunkCols / 16);
      codes[i] = *reinterpret_cast<const uint4*>(x.codes + row * x.padded_cols +
                                                 chunk * kChunkCols + item % 16 * 16);
    }
    const int group = threadIdx.x / (kChunkBlocks * 4);
    const int rest = threadIdx.x % (kChunkBlocks * 4) * 2;
    const int64_t index =
        (int64_t{first_group + group} * (x.padded_cols / kScaleCols) + chunk * kChunkBlocks) * 8 +
        rest;
    scales = *reinterpret_cast<const float2*>(x.scales + index);
    if (F == MatrixFormat::kAffine4) sums = *reinterpret_cast<const float2*>(x.sums + index);
  }
  template <MatrixFormat F>
  __device__ __forceinline__ void Store(Stage& stage) const {
#pragma unroll
    for (int i = 0; i < kCodeLoads; ++i) {
      const int item = i * kThreads + threadIdx.x;
      *reinterpret_cast<uint4*>(&stage.codes[item / 16][item % 16 * 16]) = codes[i];
    }
    const int group = threadIdx.x / (kChunkBlocks * 4);
    const int rest = threadIdx.x % (kChunkBlocks * 4) * 2;
    *reinterpret_cast<float2*>(&stage.scales[group][0][0] + rest) = scales;
    if (F == MatrixFormat::kAffine4) {
      *reinterpret_cast<float2*>(&stage.sums[group][0][0] + rest) = sums;
    }
  }
};

template <MatrixFormat F>
__device__ __forceinline__ ActivationTile StagedTile(const Stage& stage, int group, int tile,
                                                     int lane) {
  ActivationTile x;
  const int g = lane / 4;
  const int t = lane % 4;
  x.codes = *reinterpret_cast<const uint4*>(&stage.codes[group * 8 + g][tile * kTileCols + t * 16]);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    x.scales[half] = *reinterpret_cast<const float2*>(&stage.scales[group][tile * 2 + half][2 * t]);
    if (F == MatrixFormat::kAffine4) {
      x.sums[half] = *reinterpret_cast<const float2*>(&stage.sums[group][tile * 2 + half][2 * t]);
    }
  }
  return x;
}

// acc += one chunk.
template <MatrixFormat F>
__device__ __forceinline__ void AddChunk(const uint8_t* chunk, const Stage& stage,
                                         const Codebook& book, const float2 (&row_scale)[2],
                                         int lane, float (&acc)[kGroups][4]) {
  WeightTile<F> next = LoadWeightTile<F>(chunk, 0, lane);
  const ChunkScales<F> stored = LoadChunkScales<F>(chunk, lane);
#pragma unroll
  for (int tile = 0; tile < kChunkTiles; ++tile) {
    const HalfTile<false> a[2] = {DecodeHalf<F, false>(next, 0, book),
                                  DecodeHalf<F, false>(next, 1, book)};
    if (tile + 1 < kChunkTiles) next = LoadWeightTile<F>(chunk, tile + 1, lane);
    const TileScales scales = DecodeScales<F>(stored, tile, row_scale);
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      AccumulateTile<F>(a, scales, StagedTile<F>(stage, group, tile, lane), acc[group]);
    }
  }
}

template <MatrixFormat F, int kSlices, class End>
__global__ __launch_bounds__(kThreads, 2) void ManyRowsKernel(MatmulInput in, End end) {
  __shared__ __align__(16) Stage stage;
  __shared__ float values[8][kBlockOutputs + 4];
  __shared__ float inverse_rms[kBlockRows];
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int first_group = blockIdx.x * kGroups;
  const int first_output = blockIdx.y * kBlockOutputs;
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int num_rows = *in.num_rows - first_group * 8;
  if (num_rows <= 0) return;

  const int last_tile = (in.weights.num_rows + kTileRows - 1) / kTileRows - 1;
  const int64_t row_tile = min(first_output / kTileRows + warp, last_tile);
  const uint8_t* chunks = in.weights.chunks + row_tile * in.weights.num_chunks * ChunkBytes(F);
  const Codebook book = LoadCodebook(in.weights);
  float2 row_scale[2] = {};
  if constexpr (F == MatrixFormat::kNf4) {
    const float2* scales = reinterpret_cast<const float2*>(in.weights.row_scales);
    row_scale[0] = scales[row_tile * kTileRows + lane / 4];
    row_scale[1] = scales[row_tile * kTileRows + lane / 4 + 8];
  }
  for (int row = warp; row < min(num_rows, kBlockRows); row += kWarps) {
    const float value = InverseRms(in.norm, int64_t{first_group} * 8 + row, lane);
    if (lane == 0) inverse_rms[row] = value;
  }

  float total[kGroups][4];
  StageRegisters next;
  next.Load<F>(in.x, first_group, 0);
#pragma unroll 1
  for (int slice = 0; slice < kSlices; ++slice) {
    float acc[kGroups][4] = {};
    const int limit = SliceBegin(in.weights.num_chunks, slice + 1, kSlices);
#pragma unroll 1
    for (int chunk = SliceBegin(in.weights.num_chunks, slice, kSlices); chunk < limit; ++chunk) {
      __syncthreads();
      next.Store<F>(stage);
      __syncthreads();
      if (chunk + 1 < in.weights.num_chunks) next.Load<F>(in.x, first_group, chunk + 1);
      AddChunk<F>(chunks + int64_t{chunk} * ChunkBytes(F), stage, book, row_scale, lane, acc);
    }
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        total[group][i] = slice == 0 ? acc[group][i] : total[group][i] + acc[group][i];
      }
    }
  }

#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    if (group * 8 >= num_rows) break;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      values[lane % 4 * 2 + i % 2][warp * kTileRows + lane / 4 + i / 2 * 8] = total[group][i];
    }
    __syncthreads();
    for (int part = 0; part < kBlockOutputs / End::kOutputs; ++part) {
      const int output = first_output + part * End::kOutputs;
      if (output >= in.weights.num_rows) break;
      end.Apply(&values[0][part * End::kOutputs], kBlockOutputs + 4, inverse_rms + group * 8,
                first_group + group, min(num_rows - group * 8, 8), output, warp, kWarps, lane);
    }
  }
}

template <MatrixFormat F, int kSlices, class End>
cudaError_t LaunchEnd(const MatmulInput& in, const End& end, int32_t max_rows,
                      const LaunchOptions& options) {
  const dim3 grid((max_rows + kBlockRows - 1) / kBlockRows,
                  (in.weights.num_rows + kBlockOutputs - 1) / kBlockOutputs);
  return Launch(ManyRowsKernel<F, kSlices, End>, grid, kThreads, 0, options, in, end);
}

template <MatrixFormat F>
cudaError_t LaunchFormat(const MatmulCall& call, int32_t max_rows, const LaunchOptions& options) {
  switch (call.end) {
    case MatmulEnd::kFloat:
      if (call.input.weights.num_rows >= kManyOutputs) {
        return LaunchEnd<F, kManyOutputsSlices>(call.input, StoreEnd{call.float_output}, max_rows,
                                                options);
      }
      return LaunchEnd<F, kFloatSlices>(call.input, StoreEnd{call.float_output}, max_rows, options);
    case MatmulEnd::kResidual:
      return LaunchEnd<F, kResidualSlices>(call.input, ResidualEnd{call.residual_output}, max_rows,
                                           options);
    case MatmulEnd::kGated:
      return LaunchEnd<F, kGatedSlices>(call.input, GatedEnd{call.gated_output}, max_rows, options);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t LaunchMatmulManyRows(const MatmulCall& call, int32_t max_rows,
                                 const LaunchOptions& options) {
  switch (call.input.weights.format) {
    case MatrixFormat::kNf4:
      return LaunchFormat<MatrixFormat::kNf4>(call, max_rows, options);
    case MatrixFormat::kCode4:
      return LaunchFormat<MatrixFormat::kCode4>(call, max_rows, options);
    case MatrixFormat::kAffine4:
      return LaunchFormat<MatrixFormat::kAffine4>(call, max_rows, options);
    case MatrixFormat::kCode8:
      return LaunchFormat<MatrixFormat::kCode8>(call, max_rows, options);
  }
  return cudaErrorInvalidValue;
}

}  // namespace tandem::cuda
