// Many rows (prompts, large batches): each weight that is decoded meets 32 or 64 rows. The sums
// are cut and added as with few rows, so that both give the same bits.
#include "common/kernels/cuda/epilogue.cuh"
#include "common/kernels/cuda/launch.cuh"

namespace tandem::cuda {
namespace {

constexpr int kWarps = 8;  // of 16 outputs each
constexpr int kBlockOutputs = kWarps * kTileRows;
static_assert(kBlockOutputs == kManyRowsOutputs);
constexpr int kThreads = kWarps * 32;

// Activations of one chunk, as they lie in memory.
template <int kGroups>
struct Stage {
  uint4 codes[kGroups][kChunkTiles][32];
  float4 scales[kGroups][kChunkTiles][4];
  float4 sums[kGroups][kChunkTiles][4];
};

// Copies the block's rows to shared memory, chunk by chunk: what a thread has to do with it.
template <MatrixFormat F, int kGroups>
struct StageCopy {
  static constexpr int kUnits = kChunkTiles * 32;          // of a group's codes, 16 bytes each
  static constexpr int kThreadGroups = kThreads / kUnits;  // that are copied at a time
  static constexpr int kScaleUnits = kChunkTiles * 4;      // of a group
  static_assert(kThreads % kUnits == 0 && kGroups % kThreadGroups == 0);
  static_assert(kGroups * kScaleUnits <= kThreads);
  const int8_t* codes;
  const float* scales;
  const float* sums;
  int64_t step;  // bytes of kThreadGroups groups

  __device__ __forceinline__ StageCopy(const Activations& x, int first_group) {
    const int64_t group = first_group + threadIdx.x / kUnits;
    codes = x.codes + group * 8 * x.padded_cols + threadIdx.x % kUnits * 16;
    step = int64_t{kThreadGroups} * 8 * x.padded_cols;
    const int64_t scales_of = first_group + threadIdx.x / kScaleUnits;
    const int64_t from =
        scales_of * (x.padded_cols / kTileCols) * 16 + threadIdx.x % kScaleUnits * 4;
    scales = x.scales + from;
    sums = x.sums + from;
  }
  // Begins to copy the next chunk.
  __device__ __forceinline__ void Next(Stage<kGroups>& stage) {
#pragma unroll
    for (int i = 0; i < kGroups / kThreadGroups; ++i) {
      CopyUnit<16>(&stage.codes[i * kThreadGroups][0][0] + threadIdx.x, codes + i * step);
    }
    if (threadIdx.x < kGroups * kScaleUnits) {
      CopyUnit<16>(&stage.scales[0][0][0] + threadIdx.x, scales);
      if (F == MatrixFormat::kAffine4) CopyUnit<16>(&stage.sums[0][0][0] + threadIdx.x, sums);
    }
    codes += kChunkCols * 8;
    scales += kScaleUnits * 4;
    sums += kScaleUnits * 4;
  }
};

template <MatrixFormat F, int kGroups>
__device__ __forceinline__ ActivationTile StagedTile(const Stage<kGroups>& stage, int group,
                                                     int tile, int lane) {
  ActivationTile x;
  x.codes = stage.codes[group][tile][lane];
  x.SetScales(stage.scales[group][tile][lane % 4]);
  if (F == MatrixFormat::kAffine4) x.SetSums(stage.sums[group][tile][lane % 4]);
  return x;
}

// The weights of 16 outputs on their way, kAhead tiles before they are used.
template <MatrixFormat F>
struct WeightStream {
  static constexpr int kAhead = 2;
  const uint8_t* chunk;  // the present one
  int chunks_left;       // behind it
  WeightTile<F> tiles[kAhead];
  ChunkScales<F> scales;  // of the present chunk

  __device__ __forceinline__ WeightStream(const uint8_t* chunks, int num_chunks, int lane)
      : chunk(chunks), chunks_left(num_chunks - 1) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) tiles[i] = LoadWeightTile<F>(chunk, i, lane);
    scales = LoadChunkScales<F>(chunk, lane);
  }
  // `tile`: counted from the present chunk's first; those of the next chunk follow.
  __device__ __forceinline__ void Fetch(int tile, int lane) {
    if (tile >= kChunkTiles && chunks_left == 0) return;
    tiles[tile % kAhead] =
        LoadWeightTile<F>(chunk + tile / kChunkTiles * ChunkBytes(F), tile % kChunkTiles, lane);
  }
};

// acc += one chunk; the stream moves on to the next.
template <MatrixFormat F, int kGroups>
__device__ __forceinline__ void AddChunk(WeightStream<F>& stream, const Stage<kGroups>& stage,
                                         const Codebook& book, const float2 (&row_scale)[2],
                                         int lane, float (&acc)[kGroups][4]) {
  ChunkScales<F> next_scales = stream.scales;
  if (stream.chunks_left > 0) next_scales = LoadChunkScales<F>(stream.chunk + ChunkBytes(F), lane);
#pragma unroll
  for (int tile = 0; tile < kChunkTiles; ++tile) {
    const WeightTile<F>& words = stream.tiles[tile % stream.kAhead];
    const HalfTile<false> a[2] = {DecodeHalf<F, false>(words, 0, book),
                                  DecodeHalf<F, false>(words, 1, book)};
    stream.Fetch(tile + stream.kAhead, lane);
    const TileScales scales = DecodeScales<F>(stream.scales, tile, row_scale);
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      AccumulateTile<F>(a, scales, StagedTile<F, kGroups>(stage, group, tile, lane), acc[group]);
    }
  }
  stream.chunk += ChunkBytes(F);
  --stream.chunks_left;
  stream.scales = next_scales;
}

// The product of the block, slice by slice as with few rows. Called by all warps. `when_ready` is
// called when the previous kernel's results are there, before a barrier.
template <MatrixFormat F, int kSlices, int kGroups, class WhenReady>
__device__ __forceinline__ void SumChunks(const MatmulInput& in, int first_group, int row_tile,
                                          Stage<kGroups> (&stages)[2], int lane,
                                          const WhenReady& when_ready, float (&total)[kGroups][4]) {
  const int num_chunks = in.weights.num_chunks;
  WeightStream<F> stream(in.weights.chunks + int64_t{row_tile} * num_chunks * ChunkBytes(F),
                         num_chunks, lane);
  Codebook book = {};
  if constexpr (HasCodebook(F)) book = LoadCodebook(in.weights);
  float2 row_scale[2] = {};
  if constexpr (F == MatrixFormat::kNf4) {
    const float2* scales = reinterpret_cast<const float2*>(in.weights.row_scales);
    row_scale[0] = scales[row_tile * kTileRows + lane / 4];
    row_scale[1] = scales[row_tile * kTileRows + lane / 4 + 8];
  }
  WaitForPreviousKernel();
  StageCopy<F, kGroups> copy(in.x, first_group);
  copy.Next(stages[0]);
  when_ready();
  int chunk = 0;
#pragma unroll 1
  for (int slice = 0; slice < kSlices; ++slice) {
    float acc[kGroups][4] = {};
    const int limit = SliceBegin(num_chunks, slice + 1, kSlices);
#pragma unroll 1
    for (; chunk < limit; ++chunk) {
      // The copies of this chunk have arrived, and nobody reads the other stage any more.
      WaitForCopies();
      __syncthreads();
      if (chunk + 1 < num_chunks) copy.Next(stages[(chunk + 1) % 2]);
      AddChunk<F, kGroups>(stream, stages[chunk % 2], book, row_scale, lane, acc);
    }
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        total[group][i] = slice == 0 ? acc[group][i] : total[group][i] + acc[group][i];
      }
    }
  }
}

// Rows of which a warp finishes one part at a time, so that one does not wait for the other.
constexpr int kTurnsAtOnce = 4;

template <MatrixFormat F, int kSlices, int kGroups, class End>
__global__ __launch_bounds__(kThreads, 2) void ManyRowsKernel(MatmulInput in, End end) {
  constexpr int kBlockRows = kGroups * 8;
  using BlockProduct = Product<1, kBlockRows, kBlockOutputs>;
  __shared__ __align__(16) Stage<kGroups> stages[2];
  __shared__ float inverse_rms[kBlockRows];
  static_assert(sizeof(BlockProduct) <= sizeof stages);
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int first_group = blockIdx.x * kGroups;
  const int64_t first_row = int64_t{first_group} * 8;
  const int first_output = blockIdx.y * kBlockOutputs;
  LetNextKernelStart();
  const int num_rows = min(*in.num_rows - first_group * 8, kBlockRows);
  if (num_rows <= 0) return;
  const int last_tile = (in.weights.num_rows + kTileRows - 1) / kTileRows - 1;
  float total[kGroups][4];
  const auto when_ready = [&] {
    float squares[kBlockRows / kWarps];
#pragma unroll
    for (int i = 0; i < kBlockRows / kWarps; ++i) {
      const int row = i * kWarps + warp;
      squares[i] = row < num_rows ? LaneSquares(in.norm, first_row + row, lane) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kBlockRows / kWarps; ++i) {
      const float value = InverseRms(in.norm, squares[i]);
      if (lane == 0) inverse_rms[i * kWarps + warp] = value;
    }
  };
  SumChunks<F, kSlices, kGroups>(in, first_group, min(first_output / kTileRows + warp, last_tile),
                                 stages, lane, when_ready, total);

  // The stages' memory is free when nobody reads them any more.
  auto& product = *reinterpret_cast<BlockProduct*>(&stages[0]);
  __syncthreads();
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      product.slices[0][group * 8 + lane % 4 * 2 + i % 2][warp * kTileRows + lane / 4 + i / 2 * 8] =
          total[group][i] * SumFactor(F);
    }
  }
  __syncthreads();
  constexpr int kWarpRows = kWarps * End::kRowsPerWarp;
  for (int part = 0; part < kBlockOutputs / End::kOutputs; ++part) {
    const int output = first_output + part * End::kOutputs;
    if (output >= in.weights.num_rows) break;
#pragma unroll kTurnsAtOnce
    for (int turn = 0; turn < kBlockRows / kWarpRows; ++turn) {
      if (turn % kTurnsAtOnce == 0 && turn * kWarpRows >= num_rows) break;
      const int row = (turn * End::kRowsPerWarp + lane / (32 / End::kRowsPerWarp)) * kWarps + warp;
      const bool exists = row < num_rows;
      end.Apply(product, row, part * End::kOutputs, inverse_rms[row], first_row + row, output,
                end.Fetch(first_row + row, output, lane, exists), lane, exists);
    }
  }
}

template <MatrixFormat F, int kSlices, int kGroups, class End>
cudaError_t LaunchGroups(const MatmulInput& in, const End& end, int32_t max_rows,
                         const LaunchOptions& options) {
  constexpr int kBlockRows = kGroups * 8;
  const dim3 grid((max_rows + kBlockRows - 1) / kBlockRows,
                  (in.weights.num_rows + kBlockOutputs - 1) / kBlockOutputs);
  return Launch(ManyRowsKernel<F, kSlices, kGroups, End>, grid, kThreads, 0, options, in, end);
}

template <MatrixFormat F, int kSlices, class End>
cudaError_t LaunchEnd(const MatmulInput& in, const End& end, int32_t max_rows,
                      const LaunchOptions& options) {
  if (RowsOfManyRowsBlock(max_rows) == 32) {
    return LaunchGroups<F, kSlices, 4>(in, end, max_rows, options);
  }
  return LaunchGroups<F, kSlices, 8>(in, end, max_rows, options);
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
    case MatrixFormat::kLinear4:
      return LaunchFormat<MatrixFormat::kLinear4>(call, max_rows, options);
    case MatrixFormat::kAffine4:
      return LaunchFormat<MatrixFormat::kAffine4>(call, max_rows, options);
    case MatrixFormat::kCode8:
      return LaunchFormat<MatrixFormat::kCode8>(call, max_rows, options);
  }
  return cudaErrorInvalidValue;
}

}  // namespace tandem::cuda
