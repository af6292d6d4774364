// Few rows: the weights are the 16-row operand and the rows the 8 columns of the
// instruction, so that one row costs what eight cost, and all of it is reading weights.
#pragma once

#include "common/kernels/cuda/epilogue.cuh"
#include "common/kernels/cuda/launch.cuh"

namespace tandem::cuda {

// The tiles of a slice, fetched `kAhead` before they are used.
template <MatrixFormat F, int kTiles, int kAhead>
struct TileStream {
  const uint8_t* chunks[kTiles];  // the present chunk of each row tile
  WeightTile<F> tiles[kTiles][kAhead];

  // `tile`: counted from the present chunk's first; those of the next chunk follow.
  __device__ __forceinline__ void Fetch(int tile, int slot, int lane) {
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      tiles[r][slot] = LoadWeightTile<F>(chunks[r] + tile / kChunkTiles * ChunkBytes(F),
                                         tile % kChunkTiles, lane);
    }
  }
};

// What a kernel is made of: a block has kWarpTiles * kTeams tiles of 16 outputs; of each team
// of kSlices warps, every warp sums one slice of the columns. kGroups: groups of eight rows;
// 0: a single row; kAhead: tiles fetched before they are used, 1, 2 or 4. With more rows the
// activations are what is read most: a warp reads them once for all its tiles.
template <MatrixFormat format, int warp_tiles, int teams, int slices, int groups, int ahead,
          int blocks_per_sm>
struct Shape {
  static constexpr MatrixFormat kFormat = format;
  static constexpr int kWarpTiles = warp_tiles;
  static constexpr int kSlices = slices;
  static constexpr bool kOneRow = groups == 0;
  static constexpr int kGroups = kOneRow ? 1 : groups;
  static constexpr int kWarps = teams * slices;
  static constexpr int kRowTiles = warp_tiles * teams;
  static constexpr int kOutputs = kRowTiles * kTileRows;
  static constexpr int kAhead = ahead;
  static constexpr int kBlocksPerSm = blocks_per_sm;
  // Decoding is what limits few rows, products and registers what limit many.
  static constexpr bool kSplit = format != MatrixFormat::kCode8 && kGroups * warp_tiles <= 2;
};

// One lane's pointers into the rows' activations, a chunk at a time.
template <MatrixFormat F>
struct ActivationCursor {
  const int8_t* codes;
  const float* scales;
  const float* sums;

  // Rows that are not there read one that is: what comes of them is not looked at.
  __device__ __forceinline__ void Start(const Activations& x, int group, int num_rows, int chunk,
                                        int lane) {
    const int row = min(group * 8 + lane / 4, num_rows - 1);
    const int64_t first = x.ScaleAt(group * 8 + lane % 4 * 2, chunk * (kChunkCols / kScaleCols));
    codes = x.codes + x.CodeAt(row, chunk * kChunkCols) + lane % 4 * 16;
    scales = x.scales + first;
    sums = x.sums + first;
  }
  __device__ __forceinline__ ActivationTile Load(int tile) const {
    ActivationTile x;
    x.codes = *reinterpret_cast<const uint4*>(codes + tile * 8 * kTileCols);
    x.SetScales(*reinterpret_cast<const float4*>(scales + tile * 16));
    if (F == MatrixFormat::kAffine4) {
      x.SetSums(*reinterpret_cast<const float4*>(sums + tile * 16));
    }
    return x;
  }
  __device__ __forceinline__ void Advance() {
    codes += kChunkCols * 8;
    scales += kChunkCols / kScaleCols * 8;
    sums += kChunkCols / kScaleCols * 8;
  }
};

// Sums this warp's slice, of the rows from group `first_group` on, into acc.
template <class S>
__device__ __forceinline__ void SumSlice(const MatmulInput& in, const SplitCodebook& split,
                                         int first_group, int first_tile, int slice, int lane,
                                         float (&acc)[S::kWarpTiles][S::kGroups][4]) {
  constexpr MatrixFormat F = S::kFormat;
  constexpr int kAhead = S::kAhead;
  const int last_tile = (in.weights.num_rows + kTileRows - 1) / kTileRows - 1;
  const int begin = SliceBegin(in.weights.num_chunks, slice, S::kSlices);
  const int limit = SliceBegin(in.weights.num_chunks, slice + 1, S::kSlices);
  TileStream<F, S::kWarpTiles, kAhead> stream;
  float2 row_scales[S::kWarpTiles][2] = {};
#pragma unroll
  for (int r = 0; r < S::kWarpTiles; ++r) {
    const int64_t row_tile = min(first_tile + r, last_tile);
    stream.chunks[r] =
        in.weights.chunks + (row_tile * in.weights.num_chunks + begin) * ChunkBytes(F);
  }
  // Weights are fetched before the activations are there.
  if (begin < limit) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) stream.Fetch(i, i, lane);
  }
  LetNextKernelStart();
  if constexpr (F == MatrixFormat::kNf4) {
#pragma unroll
    for (int r = 0; r < S::kWarpTiles; ++r) {
      const int row = min(first_tile + r, last_tile) * kTileRows + lane / 4;
      const float2* scales = reinterpret_cast<const float2*>(in.weights.row_scales) + row;
      row_scales[r][0] = scales[0];
      row_scales[r][1] = scales[8];
    }
  }
  const Codebook book = S::kSplit ? LoadCodebook(split) : LoadCodebook(in.weights);
  const int num_rows = *in.num_rows;
  WaitForPreviousKernel();
  ActivationCursor<F> cursors[S::kGroups];
#pragma unroll
  for (int group = 0; group < S::kGroups; ++group) {
    cursors[group].Start(in.x, first_group + group, num_rows, begin, lane);
  }

  ActivationTile next[S::kGroups];
  if (begin < limit) {
#pragma unroll
    for (int group = 0; group < S::kGroups; ++group) next[group] = cursors[group].Load(0);
  }
  for (int chunk = begin; chunk < limit; ++chunk) {
    ChunkScales<F> stored[S::kWarpTiles];
#pragma unroll
    for (int r = 0; r < S::kWarpTiles; ++r) {
      stored[r] = LoadChunkScales<F>(stream.chunks[r], lane);
    }
#pragma unroll
    for (int tile = 0; tile < kChunkTiles; ++tile) {
      HalfTile<S::kSplit> a[S::kWarpTiles][2];
      TileScales scales[S::kWarpTiles];
#pragma unroll
      for (int r = 0; r < S::kWarpTiles; ++r) {
        a[r][0] = DecodeHalf<F, S::kSplit>(stream.tiles[r][tile % kAhead], 0, book);
        a[r][1] = DecodeHalf<F, S::kSplit>(stream.tiles[r][tile % kAhead], 1, book);
        scales[r] = DecodeScales<F>(stored[r], tile, row_scales[r]);
      }
      if (tile + kAhead < kChunkTiles || chunk + 1 < limit) {
        stream.Fetch(tile + kAhead, tile % kAhead, lane);
      }
#pragma unroll
      for (int group = 0; group < S::kGroups; ++group) {
        const ActivationTile x = next[group];
        if (tile + 1 < kChunkTiles || chunk + 1 < limit)
          next[group] = cursors[group].Load(tile + 1);
#pragma unroll
        for (int r = 0; r < S::kWarpTiles; ++r) {
          AccumulateTile<F, S::kOneRow>(a[r], scales[r], x, acc[r][group]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < S::kWarpTiles; ++r) stream.chunks[r] += ChunkBytes(F);
#pragma unroll
    for (int group = 0; group < S::kGroups; ++group) cursors[group].Advance();
  }
}

template <class S, class End>
__global__ __launch_bounds__(S::kWarps * 32,
                             S::kBlocksPerSm) void FewRowsKernel(MatmulInput in,
                                                                 SplitCodebook split, End end) {
  constexpr int kOutputs = S::kOutputs;
  constexpr int kSlices = S::kSlices;
  static_assert(kOutputs % End::kOutputs == 0);
  __shared__ float partial[kSlices][8][kOutputs + 4];
  __shared__ float inverse_rms[S::kGroups * 8];
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int team = warp / kSlices;
  const int slice = warp % kSlices;
  const int first_tile = blockIdx.y * S::kRowTiles;
  // More rows than four groups are shared out to blocks; those that read the same weights follow
  // each other.
  const int first_group = S::kGroups == 4 ? blockIdx.x * S::kGroups : 0;
  if (first_group > 0 && *in.num_rows <= first_group * 8) return;
  float acc[S::kWarpTiles][S::kGroups][4] = {};
  SumSlice<S>(in, split, first_group, first_tile + team * S::kWarpTiles, slice, lane, acc);
  const int num_rows = min(*in.num_rows - first_group * 8, S::kGroups * 8);
  // The last blocks leave memory idle bit by bit.
  const int region =
      static_cast<int>(blockIdx.y) - static_cast<int>(gridDim.y) + in.ahead.num_regions;
  if (threadIdx.x == 0 && blockIdx.x == 0 && region >= 0) {
    PrefetchToL2(in.ahead.data + region * in.ahead.stride, in.ahead.region_bytes);
  }

  if (in.norm.square_sums != nullptr) {
    for (int row = warp; row < num_rows; row += S::kWarps) {
      const float value = InverseRms(in.norm, first_group * 8 + row, lane);
      if (lane == 0) inverse_rms[row] = value;
    }
  } else if (threadIdx.x < S::kGroups * 8) {
    inverse_rms[threadIdx.x] = 1.0f;
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
    for (int i = threadIdx.x; i < min(num_rows - group * 8, 8) * kOutputs; i += S::kWarps * 32) {
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
      if (first_tile * kTileRows + part * End::kOutputs >= in.weights.num_rows) break;
      end.Apply(&partial[0][0][part * End::kOutputs], kOutputs + 4, inverse_rms + group * 8,
                first_group + group, min(num_rows - group * 8, 8),
                first_tile * kTileRows + part * End::kOutputs, warp, S::kWarps, lane);
    }
  }
}

template <class S, class End>
cudaError_t LaunchShape(const MatmulInput& in, const End& end, int32_t max_rows,
                        const LaunchOptions& options) {
  const SplitCodebook split(in.weights.codebook);
  if (S::kSplit && !split.exists) return cudaErrorInvalidValue;
  const int row_tiles = (in.weights.num_rows + kTileRows - 1) / kTileRows;
  constexpr int kRows = S::kOneRow ? 1 : S::kGroups * 8;
  const dim3 grid((max_rows + kRows - 1) / kRows, (row_tiles + S::kRowTiles - 1) / S::kRowTiles);
  return Launch(FewRowsKernel<S, End>, grid, S::kWarps * 32, 0, options, in, split, end);
}

}  // namespace tandem::cuda
