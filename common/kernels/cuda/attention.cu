#include "common/kernels/cuda/attention.h"
#include "common/kernels/cuda/attention_merge.cuh"
#include "common/kernels/cuda/epilogue.cuh"
#include "common/kernels/cuda/kv_append.cuh"
#include "common/kernels/cuda/launch.cuh"

namespace tandem::cuda {
namespace {

constexpr int kPositionWarps = 8;  // that share out the tiles of a chunk
// Registers for 16 warps on a processor.
constexpr int BlocksPerSm(int query_tiles) { return 2 / query_tiles; }
constexpr float kLog2E = 1.4426950408889634f;

struct Place {
  uint8_t* page;
  int slot;
};

__device__ __forceinline__ Place PlaceOf(const AttentionCall& call, uint8_t* base,
                                         const int32_t* table, int position) {
  const int64_t page = table[position / call.page_positions];
  return {base + page * call.page_bytes, position % call.page_positions};
}

__device__ __forceinline__ const float* HeadOfRow(const AttentionCall& call, int64_t row,
                                                  int head) {
  const int64_t width = (call.num_heads + 2 * call.num_kv_heads) * call.head_dim;
  return call.qkv + row * width + int64_t{head} * call.head_dim;
}

// Blocks of a launch that only fetch weights, behind those of `max_chunks` in x.
constexpr int kFetchBlocks = 8;

__device__ __forceinline__ void FetchAhead(const AttentionCall& call, int block, int num_blocks) {
  if (threadIdx.x != 0) return;
  for (const WeightsAhead& ahead : call.ahead) {
    for (int region = block; region < ahead.num_regions; region += num_blocks) {
      PrefetchToL2(ahead.data + region * ahead.stride, ahead.region_bytes);
    }
  }
}

// Brings the K and V of a chunk on their way before anybody waits for them. One thread calls.
__device__ __forceinline__ void FetchChunk(const AttentionCall& call, const RowGroup& group,
                                           int kv_head, int chunk) {
  const int last = group.position + group.num_rows - 1;
  const int end = min(ChunkStart(chunk + 1), last + 1);
  const int32_t* table = call.page_tables + group.table_offset;
  for (int page = ChunkStart(chunk) / call.page_positions; page * call.page_positions < end;
       ++page) {
    // K and V of a head lie side by side.
    PrefetchToL2(
        call.kv + table[page] * call.page_bytes + call.k_offset + kv_head * call.head_stride,
        static_cast<int>(call.head_stride));
  }
}

// Writes the key and the value of a row; called by a warp, `is_value` says which of them.
template <KvType KT, KvType VT, int kHeadDim>
__device__ __forceinline__ void Append(const AttentionCall& call, uint8_t* base,
                                       const int32_t* table, int row, int position, int kv_head,
                                       bool is_value, int lane) {
  const Place place = PlaceOf(call, base, table, position);
  HeadVector<kHeadDim> vector;
  if (is_value) {
    vector.Load(HeadOfRow(call, row, call.num_heads + call.num_kv_heads + kv_head), lane);
    if (VT == KvType::k4) vector.Hadamard(lane);
    uint8_t* codes = place.page + call.v_offset + kv_head * call.head_stride;
    uint8_t* scales = codes + call.page_positions * (kHeadDim * kBitsOf(VT) / 8);
    StoreValue<VT, kHeadDim>(vector, codes, scales, place.slot, lane);
    return;
  }
  vector.Load(HeadOfRow(call, row, call.num_heads + kv_head), lane);
  vector.Rope(call.rope + int64_t{row} * (call.rope_dim / 2), call.rope_dim, lane);
  if (KT == KvType::k4) vector.Hadamard(lane);
  uint8_t* codes = place.page + call.k_offset + kv_head * call.head_stride;
  uint8_t* scales = codes + call.page_positions * (kHeadDim * kBitsOf(KT) / 8);
  StoreKey<KT, kHeadDim>(vector, codes, scales, place.slot, lane);
}

template <KvType KT, KvType VT, int kHeadDim>
__global__ void AppendKernel(AttentionCall call) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int group_index = blockIdx.x;
  if (group_index >= call.counts->num_row_groups) return;
  const RowGroup group = call.groups[group_index];
  const int32_t* table = call.page_tables + group.table_offset;
  const int warp = threadIdx.x / 32;
  for (int item = warp; item < 2 * group.num_rows; item += blockDim.x / 32) {
    Append<KT, VT, kHeadDim>(call, call.kv, table, group.first_row + item / 2,
                             group.position + item / 2, blockIdx.y, item % 2 == 1,
                             threadIdx.x % 32);
  }
}

// The queries of a group, turned and rotated like the keys, and scaled for base 2.
template <KvType KT, int kHeadDim>
__device__ __forceinline__ void PrepareQueries(const AttentionCall& call, const RowGroup& group,
                                               int kv_head, int num_slots, int warp, int num_warps,
                                               int lane, __half* queries) {
  const int heads = call.num_heads / call.num_kv_heads;
  const float scale = kLog2E * rsqrtf(static_cast<float>(kHeadDim));
  for (int query = warp; query < num_slots; query += num_warps) {
    __half* target = queries + query * QueryStride(kHeadDim) + lane * (kHeadDim / 32);
    HeadVector<kHeadDim> vector = {};
    if (query < group.num_rows * heads) {
      const int64_t row = group.first_row + query / heads;
      vector.Load(HeadOfRow(call, row, kv_head * heads + query % heads), lane);
      vector.Rope(call.rope + row * (call.rope_dim / 2), call.rope_dim, lane);
      if (KT == KvType::k4) vector.Hadamard(lane);
    }
#pragma unroll
    for (int i = 0; i < kHeadDim / 32; i += 2) {
      *reinterpret_cast<uint32_t*>(target + i) =
          HalfPair(vector.values[i] * scale, vector.values[i + 1] * scale);
    }
  }
}

// Quotients, turned back and quantized for the output matrix.
template <KvType VT, int kHeadDim>
__device__ __forceinline__ void Finish(const AttentionCall& call, const RowGroup& group,
                                       int kv_head, const PartSums<kHeadDim>* sums, int warp,
                                       int num_warps, int lane) {
  constexpr int kPerLane = kHeadDim / 32;
  const int heads = call.num_heads / call.num_kv_heads;
  for (int query = warp; query < group.num_rows * heads; query += num_warps) {
    const PartSums<kHeadDim>& part = sums[query / 16];
    const float inverse = 1.0f / part.sum[query % 16];
    HeadVector<kHeadDim> vector;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      vector.values[i] = part.out[query % 16][lane * kPerLane + i] * inverse;
    }
    if (VT == KvType::k4) vector.Hadamard(lane);
    const int64_t row = group.first_row + query / heads;
    const int col = (kv_head * heads + query % heads) * kHeadDim;
    // To one dim a lane, block by block.
#pragma unroll
    for (int block = 0; block < kPerLane; ++block) {
      float value = 0.0f;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        const float candidate =
            __shfl_sync(0xffffffffu, vector.values[i], (block * 32 + lane) / kPerLane);
        if (lane % kPerLane == i) value = candidate;
      }
      QuantizeBlock(call.out, row, col + block * 32, value, lane);
    }
  }
}

template <KvType KT, KvType VT, int kHeadDim, int kQueryTiles>
__device__ __forceinline__ void SumChunk(const AttentionCall& call, const RowGroup& group,
                                         const uint8_t* base, int kv_head, int chunk,
                                         const __half* queries, PartSums<kHeadDim>* sums) {
  const int lane = threadIdx.x % 32;
  const int query_tile = threadIdx.x / 32 / kPositionWarps;
  const int warp = threadIdx.x / 32 % kPositionWarps;
  const int heads = call.num_heads / call.num_kv_heads;
  const int last = group.position + group.num_rows - 1;
  const int end = min(ChunkStart(chunk + 1), last + 1);
  const int query = query_tile * 16 + lane / 4;
  const int limits[2] = {group.position + query / heads, group.position + (query + 8) / heads};
  const int32_t* table = call.page_tables + group.table_offset;
  WarpState<kHeadDim> state;
  for (int position = ChunkStart(chunk) + warp * kTilePositions; position < end;
       position += kPositionWarps * kTilePositions) {
    const Place place = PlaceOf(call, const_cast<uint8_t*>(base), table, position);
    const uint8_t* head = place.page + kv_head * call.head_stride;
    AddTile<KT, VT, kHeadDim>(queries + query_tile * 16 * QueryStride(kHeadDim),
                              RegionAt<KT, kHeadDim>(head + call.k_offset, call.page_positions),
                              RegionAt<VT, kHeadDim>(head + call.v_offset, call.page_positions),
                              place.slot, position, last, limits, lane, state);
  }
  const int num_tiles = (end - ChunkStart(chunk) + kTilePositions - 1) / kTilePositions;
  for (int turn = 0; turn < min(num_tiles, kPositionWarps); ++turn) {
    if (turn == warp) MergeWarp(state, sums[query_tile], lane);
    __syncthreads();
  }
}

template <KvType KT, KvType VT, int kHeadDim, int kQueryTiles>
__global__ __launch_bounds__(kQueryTiles* kPositionWarps * 32,
                             BlocksPerSm(kQueryTiles)) void AllChunksKernel(AttentionCall call) {
  constexpr int kWarps = kQueryTiles * kPositionWarps;
  constexpr int kQueries = kQueryTiles * 16;
  __shared__ __align__(16) __half queries[kQueries * QueryStride(kHeadDim)];
  __shared__ __align__(16) PartSums<kHeadDim> sums[kQueryTiles];
  __shared__ __align__(16) PartSums<kHeadDim> total[kQueryTiles];
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int kv_head = blockIdx.y;
  LetNextKernelStart();
  WaitForPreviousKernel();
  if (blockIdx.z >= call.counts->num_row_groups) return;
  const RowGroup group = call.groups[blockIdx.z];
  const int num_chunks = NumChunks(group.position + group.num_rows);
  const int num_queries = group.num_rows * (call.num_heads / call.num_kv_heads);
  PrepareQueries<KT, kHeadDim>(call, group, kv_head, kQueries, warp, kWarps, lane, queries);
  Clear(sums, kQueryTiles);
  Clear(total, kQueryTiles);
  for (int chunk = 0; chunk < num_chunks; ++chunk) {
    __syncthreads();
    SumChunk<KT, VT, kHeadDim, kQueryTiles>(call, group, call.kv, kv_head, chunk, queries, sums);
    MergeParts(total, sums, num_queries);
    Clear(sums, kQueryTiles);
  }
  Finish<VT, kHeadDim>(call, group, kv_head, total, warp, kWarps, lane);
}

template <KvType KT, KvType VT, int kHeadDim, int kQueryTiles>
__global__ __launch_bounds__(kQueryTiles* kPositionWarps * 32,
                             BlocksPerSm(kQueryTiles)) void OneChunkKernel(AttentionCall call) {
  constexpr int kWarps = kQueryTiles * kPositionWarps;
  constexpr int kQueries = kQueryTiles * 16;
  __shared__ __align__(16) __half queries[kQueries * QueryStride(kHeadDim)];
  __shared__ __align__(16) PartSums<kHeadDim> sums[kQueryTiles];
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int kv_head = blockIdx.y;
  LetNextKernelStart();
  const int num_chunk_blocks = static_cast<int>(gridDim.x) - kFetchBlocks;
  // The last chunks are long: they begin first.
  const int chunk = num_chunk_blocks - 1 - static_cast<int>(blockIdx.x);
  if (chunk < 0) {
    if (blockIdx.z == 0) {
      FetchAhead(call, (-1 - chunk) * gridDim.y + kv_head, kFetchBlocks * gridDim.y);
    }
    return;
  }
  WaitForPreviousKernel();
  if (blockIdx.z >= call.counts->num_row_groups) return;
  const RowGroup group = call.groups[blockIdx.z];
  const int num_chunks = NumChunks(group.position + group.num_rows);
  if (chunk >= num_chunks) return;
  if (threadIdx.x == 0) FetchChunk(call, group, kv_head, chunk);
  const int num_queries = group.num_rows * (call.num_heads / call.num_kv_heads);
  uint8_t* base = call.kv;
  PrepareQueries<KT, kHeadDim>(call, group, kv_head, kQueries, warp, kWarps, lane, queries);
  Clear(sums, kQueryTiles);
  for (int item = warp; item < 2 * group.num_rows; item += kWarps) {
    const int position = group.position + item / 2;
    if (position < ChunkStart(chunk) || position >= ChunkStart(chunk + 1)) continue;
    Append<KT, VT, kHeadDim>(call, base, call.page_tables + group.table_offset,
                             group.first_row + item / 2, position, kv_head, item % 2 == 1, lane);
  }
  __syncthreads();
  SumChunk<KT, VT, kHeadDim, kQueryTiles>(call, group, base, kv_head, chunk, queries, sums);
  if (num_chunks > 1 &&
      !MergeWithOthers(call, num_chunks, num_queries, sums, kQueryTiles, chunk, num_chunk_blocks))
    return;
  Finish<VT, kHeadDim>(call, group, kv_head, sums, warp, kWarps, lane);
}

template <KvType KT, KvType VT, int kHeadDim, int kQueryTiles>
cudaError_t LaunchTiles(const AttentionCall& call, AttentionSplit split, int32_t max_groups,
                        int32_t max_chunks, const LaunchOptions& options) {
  constexpr int kThreads = kQueryTiles * kPositionWarps * 32;
  if (split == AttentionSplit::kNone) {
    return Launch(AllChunksKernel<KT, VT, kHeadDim, kQueryTiles>,
                  dim3(1, call.num_kv_heads, max_groups), kThreads, 0, options, call);
  }
  return Launch(OneChunkKernel<KT, VT, kHeadDim, kQueryTiles>,
                dim3(max_chunks + kFetchBlocks, call.num_kv_heads, max_groups), kThreads, 0,
                options, call);
}

// Calls `function` with the KV types and head dimension of `call` as constants.
template <KvType KT, KvType VT, class Function>
cudaError_t WithHeadDim(const AttentionCall& call, const Function& function) {
  switch (call.head_dim) {
    case 64:
      return function.template operator()<KT, VT, 64>();
    case 128:
      return function.template operator()<KT, VT, 128>();
    default:
      return cudaErrorInvalidValue;
  }
}
template <class Function>
cudaError_t Dispatch(const AttentionCall& call, const Function& function) {
  if (call.k_type == KvType::k8 && call.v_type == KvType::k4) {
    return WithHeadDim<KvType::k8, KvType::k4>(call, function);
  }
  if (call.k_type != call.v_type) return cudaErrorInvalidValue;
  switch (call.k_type) {
    case KvType::kF16:
      return WithHeadDim<KvType::kF16, KvType::kF16>(call, function);
    case KvType::k8:
      return WithHeadDim<KvType::k8, KvType::k8>(call, function);
    case KvType::k4:
      return WithHeadDim<KvType::k4, KvType::k4>(call, function);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t LaunchAttention(const AttentionCall& call, AttentionSplit split, int32_t max_rows,
                            int32_t max_groups, int32_t max_chunks, const LaunchOptions& options) {
  const bool one_tile = max_rows * (call.num_heads / call.num_kv_heads) <= 16;
  return Dispatch(call, [&]<KvType KT, KvType VT, int kHeadDim>() {
    return one_tile
               ? LaunchTiles<KT, VT, kHeadDim, 1>(call, split, max_groups, max_chunks, options)
               : LaunchTiles<KT, VT, kHeadDim, 2>(call, split, max_groups, max_chunks, options);
  });
}

cudaError_t LaunchAppendKv(const AttentionCall& call, int32_t max_groups,
                           const LaunchOptions& options) {
  return Dispatch(call, [&]<KvType KT, KvType VT, int kHeadDim>() {
    return Launch(AppendKernel<KT, VT, kHeadDim>, dim3(max_groups, call.num_kv_heads), 256, 0,
                  options, call);
  });
}

}  // namespace tandem::cuda
