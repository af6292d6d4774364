// Few rows: the weights are the 16-row operand and the rows the 8 columns of the
// instruction, so that one row costs what eight cost, and all of it is reading weights.
#include "common/kernels/cuda/epilogue.cuh"
#include "common/kernels/cuda/launch.cuh"

namespace tandem::cuda {
namespace {

// The tiles of a slice, fetched `kAhead` before they are used.
template <MatrixFormat F, int kTiles, int kAhead>
struct TileStream {
  const uint8_t* rows[kTiles];  // the chunks of each row tile
  WeightTile<F> tiles[kTiles][kAhead];

  __device__ __forceinline__ void Fetch(int chunk, int tile, int slot, int lane) {
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      tiles[r][slot] = LoadWeightTile<F>(rows[r] + int64_t{chunk} * ChunkBytes(F), tile, lane);
    }
  }
};

// What a kernel is made of: a block has kWarpTiles * kTeams tiles of 16 outputs; of each team
// of kSlices warps, every warp sums one slice of the columns. kGroups: groups of eight rows.
template <MatrixFormat format, int warp_tiles, int teams, int slices, int groups>
struct Shape {
  static constexpr MatrixFormat kFormat = format;
  static constexpr int kWarpTiles = warp_tiles;
  static constexpr int kSlices = slices;
  static constexpr int kGroups = groups;
  static constexpr int kWarps = teams * slices;
  static constexpr int kRowTiles = warp_tiles * teams;
  static constexpr int kOutputs = kRowTiles * kTileRows;
  // 2 to 4 KiB in flight for each warp.
  static constexpr int kAhead = format == MatrixFormat::kCode8 || groups > 2 ? 2 : 4;
  // Leaves 80 registers to the kernels that have one row tile and one group, 128 to others.
  static constexpr int kBlocksPerSm = kWarps > 8 || groups > 2 ? 1 : (warp_tiles * groups == 1 ? 3 : 2);
};

// Sums this warp's slice into acc.
template <class S>
__device__ __forceinline__ void SumSlice(const MatmulInput& in, int first_tile, int slice, int lane,
                                         int* num_rows,
                                         float (&acc)[S::kWarpTiles][S::kGroups][4]) {
  constexpr MatrixFormat F = S::kFormat;
  const int last_tile = (in.weights.num_rows + kTileRows - 1) / kTileRows - 1;
  const int begin = SliceBegin(in.weights.num_chunks, slice, S::kSlices);
  const int limit = SliceBegin(in.weights.num_chunks, slice + 1, S::kSlices);
  TileStream<F, S::kWarpTiles, S::kAhead> stream;
  float2 row_scales[S::kWarpTiles][2] = {};
#pragma unroll
  for (int r = 0; r < S::kWarpTiles; ++r) {
    const int64_t row_tile = min(first_tile + r, last_tile);
    stream.rows[r] = in.weights.chunks + row_tile * in.weights.num_chunks * ChunkBytes(F);
    if constexpr (F == MatrixFormat::kNf4) {
      const float2* scales = reinterpret_cast<const float2*>(in.weights.row_scales);
      row_scales[r][0] = scales[row_tile * kTileRows + lane / 4];
      row_scales[r][1] = scales[row_tile * kTileRows + lane / 4 + 8];
    }
  }
  // Weights are fetched before the activations are there.
  if (begin < limit) {
#pragma unroll
    for (int i = 0; i < S::kAhead; ++i) stream.Fetch(begin, i, i, lane);
  }
  LetNextKernelStart();
  const Codebook book = LoadCodebook(in.weights);
  WaitForPreviousKernel();
  *num_rows = min(*in.num_rows, S::kGroups * 8);

  for (int chunk = begin; chunk < limit; ++chunk) {
    ChunkScales<F> stored[S::kWarpTiles];
#pragma unroll
    for (int r = 0; r < S::kWarpTiles; ++r) {
      stored[r] = LoadChunkScales<F>(stream.rows[r] + int64_t{chunk} * ChunkBytes(F), lane);
    }
#pragma unroll
    for (int tile = 0; tile < kChunkTiles; ++tile) {
      constexpr int kAhead = S::kAhead;
      uint32_t a[S::kWarpTiles][2][4];
#pragma unroll
      for (int r = 0; r < S::kWarpTiles; ++r) {
        DecodeHalf<F>(stream.tiles[r][tile % kAhead], 0, book, a[r][0]);
        DecodeHalf<F>(stream.tiles[r][tile % kAhead], 1, book, a[r][1]);
      }
      if (tile + kAhead < kChunkTiles) {
        stream.Fetch(chunk, tile + kAhead, tile % kAhead, lane);
      } else if (chunk + 1 < limit) {
        stream.Fetch(chunk + 1, tile + kAhead - kChunkTiles, tile % kAhead, lane);
      }
#pragma unroll
      for (int group = 0; group < S::kGroups; ++group) {
        const ActivationTile x = LoadActivationTile<F>(
            in.x, group, chunk * kChunkTiles + tile, lane, group * 8 + lane / 4 < *num_rows);
#pragma unroll
        for (int r = 0; r < S::kWarpTiles; ++r) {
          AccumulateTile<F>(a[r], DecodeScales<F>(stored[r], tile, row_scales[r]), x,
                            acc[r][group]);
        }
      }
    }
  }
}

template <class S, class End>
__global__ __launch_bounds__(S::kWarps * 32, S::kBlocksPerSm) void FewRowsKernel(MatmulInput in,
                                                                               End end) {
  constexpr int kOutputs = S::kOutputs;
  constexpr int kSlices = S::kSlices;
  static_assert(kOutputs % End::kOutputs == 0);
  __shared__ float partial[kSlices][8][kOutputs + 4];
  __shared__ float inverse_rms[S::kGroups * 8];
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int team = warp / kSlices;
  const int slice = warp % kSlices;
  const int first_tile = blockIdx.x * S::kRowTiles;
  int num_rows = 0;
  float acc[S::kWarpTiles][S::kGroups][4] = {};
  SumSlice<S>(in, first_tile + team * S::kWarpTiles, slice, lane, &num_rows, acc);

  for (int row = warp; row < num_rows; row += S::kWarps) {
    const float value = InverseRms(in.norm, row, lane);
    if (lane == 0) inverse_rms[row] = value;
  }
  const int g = lane / 4;
  const int t = lane % 4;
#pragma unroll
  for (int group = 0; group < S::kGroups; ++group) {
    if (group * 8 >= num_rows) break;
    if (group > 0) __syncthreads();
#pragma unroll
    for (int r = 0; r < S::kWarpTiles; ++r) {
      const int output = (team * S::kWarpTiles + r) * kTileRows + g;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        partial[slice][2 * t + i % 2][output + i / 2 * 8] = acc[r][group][i];
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 8 * kOutputs; i += S::kWarps * 32) {
      const int row = i / kOutputs;
      const int output = i % kOutputs;
      float sum = partial[0][row][output];
#pragma unroll
      for (int slice = 1; slice < kSlices; ++slice) sum += partial[slice][row][output];
      partial[0][row][output] = sum;
    }
    __syncthreads();
#pragma unroll
    for (int part = 0; part < kOutputs / End::kOutputs; ++part) {
      end.Apply(&partial[0][0][part * End::kOutputs], kOutputs + 4, inverse_rms + group * 8, group,
                min(num_rows - group * 8, 8), first_tile * kTileRows + part * End::kOutputs, warp,
                S::kWarps, lane);
    }
  }
}

template <class S, class End>
cudaError_t LaunchShape(const MatmulInput& in, const End& end, const LaunchOptions& options) {
  const int row_tiles = (in.weights.num_rows + kTileRows - 1) / kTileRows;
  const dim3 grid((row_tiles + S::kRowTiles - 1) / S::kRowTiles);
  return Launch(FewRowsKernel<S, End>, grid, S::kWarps * 32, 0, options, in, end);
}

template <MatrixFormat F, int kWarpTiles, int kTeams, int kSlices, class End>
cudaError_t LaunchGroups(const MatmulInput& in, const End& end, int32_t max_rows,
                         const LaunchOptions& options) {
  if (max_rows <= 8) {
    return LaunchShape<Shape<F, kWarpTiles, kTeams, kSlices, 1>>(in, end, options);
  }
  if (max_rows <= 16) {
    return LaunchShape<Shape<F, kWarpTiles, kTeams, kSlices, 2>>(in, end, options);
  }
  return LaunchShape<Shape<F, kWarpTiles, kTeams, kSlices, 4>>(in, end, options);
}

template <MatrixFormat F>
cudaError_t LaunchFormat(const MatmulCall& call, int32_t max_rows, const LaunchOptions& options) {
  switch (call.end) {
    case MatmulEnd::kFloat:
      return LaunchGroups<F, 1, 1, kFloatSlices>(call.input, StoreEnd{call.float_output}, max_rows,
                                                 options);
    case MatmulEnd::kResidual:
      return LaunchGroups<F, 2, 1, kResidualSlices>(
          call.input, ResidualEnd{call.residual_output}, max_rows, options);
    case MatmulEnd::kGated:
      return LaunchGroups<F, 2, 2, kGatedSlices>(call.input, GatedEnd{call.gated_output}, max_rows,
                                                 options);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t LaunchMatmulFewRows(const MatmulCall& call, int32_t max_rows,
                                const LaunchOptions& options) {
  if (max_rows > kMaxFewRows) return cudaErrorInvalidValue;
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
