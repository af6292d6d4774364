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
  static constexpr int kRows = kOneRow ? 1 : groups * 8;
  static constexpr int kWarps = teams * slices;
  static constexpr int kRowTiles = warp_tiles * teams;
  static constexpr int kOutputs = kRowTiles * kTileRows;
  static constexpr int kAhead = ahead;
  static constexpr int kBlocksPerSm = blocks_per_sm;
  // Decoding is what limits few rows, products and registers what limit many.
  static constexpr bool kSplit = HasCodebook(format) && kGroups * warp_tiles <= 2;
};

// Where a lane is in a group's activations, a chunk at a time.
template <MatrixFormat F>
struct ActivationCursor {
  uint32_t code_at;   // bytes
  uint32_t scale_at;  // floats, of the sums too

  // Rows that are not there read one that is: what comes of them is not looked at.
  __device__ __forceinline__ void Start(const Activations& x, int group, int num_rows, int chunk,
                                        int lane) {
    const int row = min(group * 8 + lane / 4, num_rows - 1);
    code_at = static_cast<uint32_t>(x.CodeAt(row, chunk * kChunkCols)) + lane % 4 * 16;
    scale_at = static_cast<uint32_t>(
        x.ScaleAt(group * 8 + lane % 4 * 2, chunk * (kChunkCols / kScaleCols)));
  }
  __device__ __forceinline__ ActivationTile Load(const Activations& from, int tile) const {
    ActivationTile x;
    x.codes = *reinterpret_cast<const uint4*>(from.codes + code_at + tile * 8 * kTileCols);
    x.SetScales(*reinterpret_cast<const float4*>(from.scales + scale_at + tile * 16));
    if (F == MatrixFormat::kAffine4) {
      x.SetSums(*reinterpret_cast<const float4*>(from.sums + scale_at + tile * 16));
    }
    return x;
  }
  // To the next chunk, if there is one.
  __device__ __forceinline__ void Advance(bool has_next) {
    code_at += has_next ? kChunkCols * 8 : 0;
    scale_at += has_next ? kChunkCols / kScaleCols * 8 : 0;
  }
};

// Sums this warp's slice, of the rows from group `first_group` on, into acc. `when_ready` is called
// where the previous kernel's results are there and the first of them on their way.
template <class S, class WhenReady>
__device__ __forceinline__ void SumSlice(const MatmulInput& in, const SplitCodebook& split,
                                         int first_group, int first_tile, int slice, int num_rows,
                                         int lane, const WhenReady& when_ready,
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
  Codebook book = {};
  if constexpr (HasCodebook(F)) {
    book = S::kSplit ? LoadCodebook(split) : LoadCodebook(in.weights);
  }
  ActivationCursor<F> cursors[S::kGroups];
#pragma unroll
  for (int group = 0; group < S::kGroups; ++group) {
    cursors[group].Start(in.x, first_group + group, num_rows, begin, lane);
  }
  WaitForPreviousKernel();

  ActivationTile next[S::kGroups];
  if (begin < limit) {
#pragma unroll
    for (int group = 0; group < S::kGroups; ++group) next[group] = cursors[group].Load(in.x, 0);
  }
  when_ready();
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
        // Behind the last tile another is read in vain: a condition would bring the compiler to
        // read each chunk's first tile where it is used.
        if (tile + 1 == kChunkTiles) cursors[group].Advance(chunk + 1 < limit);
        next[group] = cursors[group].Load(in.x, (tile + 1) % kChunkTiles);
#pragma unroll
        for (int r = 0; r < S::kWarpTiles; ++r) {
          AccumulateTile<F, S::kOneRow>(a[r], scales[r], x, acc[r][group]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < S::kWarpTiles; ++r) stream.chunks[r] += ChunkBytes(F);
  }
}

// What the end of a product reads, fetched before its sums are made: of each row that the warp
// finishes a lane's part.
template <class S, class End>
struct EndAhead {
  static constexpr int kRowsAtOnce = (S::kGroups < 2 ? S::kGroups : 2) * 8;  // that lie ready
  static constexpr int kWarpRows = End::kRowsPerWarp * S::kWarps;            // all warps together
  static constexpr int kTurns = (S::kRows + kWarpRows - 1) / kWarpRows;
  static constexpr int kTurnsAtOnce = (kRowsAtOnce + kWarpRows - 1) / kWarpRows;
  static constexpr int kParts = S::kOutputs / End::kOutputs;
  float squares[kTurns][End::kRowsPerWarp];
  typename End::Fetched fetched[kTurns][kParts];

  // A row of the block; `part` of those that a warp has in a turn.
  __device__ __forceinline__ static int Row(int turn, int part, int warp) {
    return (turn * End::kRowsPerWarp + part) * S::kWarps + warp;
  }
  __device__ __forceinline__ void Fetch(const MatmulInput& in, const End& end, int64_t first_row,
                                        int num_rows, int first_output, int warp, int lane) {
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
#pragma unroll
      for (int i = 0; i < End::kRowsPerWarp; ++i) {
        const int row = Row(turn, i, warp);
        squares[turn][i] = row < num_rows ? LaneSquares(in.norm, first_row + row, lane) : 0.0f;
      }
      const int row = Row(turn, lane / (32 / End::kRowsPerWarp), warp);
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        fetched[turn][part] =
            end.Fetch(first_row + row, first_output + part * End::kOutputs, lane, row < num_rows);
      }
    }
  }
  // Of the lane's row.
  __device__ __forceinline__ float InverseRmsOf(const RmsScale& norm, int turn, int lane) const {
    float result = InverseRms(norm, squares[turn][0]);
    if constexpr (End::kRowsPerWarp == 2) {
      const float second = InverseRms(norm, squares[turn][1]);
      if (lane >= 16) result = second;
    }
    return result;
  }
};

template <class S, class End>
__global__ __launch_bounds__(S::kWarps * 32,
                             S::kBlocksPerSm) void FewRowsKernel(MatmulInput in,
                                                                 SplitCodebook split, End end) {
  using Ahead = EndAhead<S, End>;
  static_assert(S::kOutputs % End::kOutputs == 0);
  __shared__ Product<S::kSlices, Ahead::kRowsAtOnce, S::kOutputs> product;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int team = warp / S::kSlices;
  const int slice = warp % S::kSlices;
  const int first_tile = blockIdx.y * S::kRowTiles;
  const int first_output = first_tile * kTileRows;
  // More rows than four groups are shared out to blocks; those that read the same weights follow
  // each other.
  const int first_group = S::kGroups == 4 ? blockIdx.x * S::kGroups : 0;
  const int num_rows = *in.num_rows;
  if (first_group > 0 && num_rows <= first_group * 8) return;
  const int rows_here = min(num_rows - first_group * 8, S::kRows);
  Ahead ahead;
  float acc[S::kWarpTiles][S::kGroups][4] = {};
  SumSlice<S>(
      in, split, first_group, first_tile + team * S::kWarpTiles, slice, num_rows, lane,
      [&] { ahead.Fetch(in, end, int64_t{first_group} * 8, rows_here, first_output, warp, lane); },
      acc);
  // The last blocks leave memory idle bit by bit.
  const int region =
      static_cast<int>(blockIdx.y) - static_cast<int>(gridDim.y) + in.ahead.num_regions;
  if (threadIdx.x == 0 && blockIdx.x == 0 && region >= 0) {
    PrefetchToL2(in.ahead.data + region * in.ahead.stride, in.ahead.region_bytes);
  }

  constexpr int kGroupsAtOnce = Ahead::kRowsAtOnce / 8;
#pragma unroll
  for (int first = 0; first < S::kGroups; first += kGroupsAtOnce) {
    if (first > 0 && first * 8 >= rows_here) break;
    if (first > 0) __syncthreads();
#pragma unroll
    for (int group = 0; group < kGroupsAtOnce; ++group) {
#pragma unroll
      for (int r = 0; r < S::kWarpTiles; ++r) {
        const int output = (team * S::kWarpTiles + r) * kTileRows + lane / 4;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          product.slices[slice][group * 8 + lane % 4 * 2 + i % 2][output + i / 2 * 8] =
              acc[r][first + group][i] * SumFactor(S::kFormat);
        }
      }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < Ahead::kTurnsAtOnce; ++i) {
      const int turn = first / kGroupsAtOnce * Ahead::kTurnsAtOnce + i;
      const float inverse_rms = ahead.InverseRmsOf(in.norm, turn, lane);
      const int row = Ahead::Row(turn, lane / (32 / End::kRowsPerWarp), warp);
      const int row_here = row - first * 8;
#pragma unroll
      for (int part = 0; part < Ahead::kParts; ++part) {
        const int output = first_output + part * End::kOutputs;
        if (output >= in.weights.num_rows) break;
        // Rows that are not there may not read beyond the product either.
        end.Apply(product, min(row_here, Ahead::kRowsAtOnce - 1), part * End::kOutputs, inverse_rms,
                  int64_t{first_group} * 8 + row, output, ahead.fetched[turn][part], lane,
                  row < rows_here && row_here < Ahead::kRowsAtOnce);
      }
    }
  }
}

template <class S, class End>
cudaError_t LaunchShape(const MatmulInput& in, const End& end, int32_t max_rows,
                        const LaunchOptions& options) {
  const SplitCodebook split(in.weights.codebook);
  if (S::kSplit && !split.exists) return cudaErrorInvalidValue;
  const int row_tiles = (in.weights.num_rows + kTileRows - 1) / kTileRows;
  const dim3 grid((max_rows + S::kRows - 1) / S::kRows,
                  (row_tiles + S::kRowTiles - 1) / S::kRowTiles);
  return Launch(FewRowsKernel<S, End>, grid, S::kWarps * 32, 0, options, in, split, end);
}

}  // namespace tandem::cuda
