#include <algorithm>

#include "common/kernels/cuda/attention.h"
#include "common/kernels/cuda/attention_chunk.cuh"
#include "common/kernels/cuda/attention_rows.cuh"
#include "common/kernels/cuda/launch.cuh"

namespace tandem::cuda {
namespace {

// Registers for 16 warps on a processor.
constexpr int BlocksPerSm(int query_tiles) { return 2 / query_tiles; }

// At least so many blocks of a KV head only fetch weights.
constexpr int kFetchBlocks = 8;

__device__ __forceinline__ void FetchAhead(const AttentionArgs& call, int block, int num_blocks) {
  if (threadIdx.x != 0) return;
  for (const WeightsAhead& ahead : call.ahead) {
    for (int region = block; region < ahead.num_regions; region += num_blocks) {
      PrefetchToL2(ahead.data + region * ahead.stride, ahead.region_bytes);
    }
  }
}

// How OneChunkKernel shares out a group.
struct RowSplit {
  Divider parts;   // blocks for a chunk of a KV head
  int num_blocks;  // in z: of all groups; behind them those that only fetch weights
  int num_slots;   // for the queries of a group, in AttentionCall::partial

  TANDEM_HOST_DEVICE constexpr int PartRows(int num_rows) const {
    return parts.Quotient(num_rows + parts.divisor - 1);
  }
};

// Several blocks share out the rows while that keeps more processors busy: turning, quantizing
// and writing queries, keys and results takes longer than summing a short context.
RowSplit SplitRows(const AttentionArgs& call, int32_t max_rows, int32_t max_groups,
                   int32_t max_chunks) {
  const int32_t blocks = max_groups * max_chunks * call.num_kv_heads;
  const int32_t parts = std::clamp(call.num_processors / blocks, 1, max_rows);
  return {.parts = Divider(parts),
          .num_blocks = max_groups * parts,
          .num_slots = QueryTiles(max_rows, call.heads.divisor) * kTileQueries};
}

// Brings the K and V of a chunk on their way before anybody waits for them. Called by a warp.
__device__ __forceinline__ void FetchChunk(const AttentionArgs& call, const RowGroup& group,
                                           int kv_head, int chunk, int lane) {
  const int last = group.position + group.num_rows - 1;
  const int end = min(ChunkStart(chunk + 1), last + 1);
  const int32_t* table = call.page_tables + group.table_offset;
#pragma unroll 1
  for (int page = call.pages.Quotient(ChunkStart(chunk)) + lane; page * call.page_positions < end;
       page += 32) {
    // K and V of a head lie side by side.
    PrefetchToL2(
        call.kv + table[page] * call.page_bytes + call.k_offset + kv_head * call.head_stride,
        static_cast<int>(call.head_stride));
  }
}

template <KvType VT, int kHeadDim>
__device__ __forceinline__ void FinishRows(const AttentionArgs& call, const RowGroup& group,
                                           int kv_head, const PartSums<kHeadDim>* sums, int warp,
                                           int num_warps, int lane) {
  const int num_queries = group.num_rows * call.heads.divisor;
#pragma unroll 1
  for (int query = warp; query < num_queries; query += num_warps) {
    const PartSums<kHeadDim>& part = sums[query / 16];
    HeadVector<kHeadDim> vector;
    vector.Load(part.out[query % 16], lane);
    FinishQuery<VT, kHeadDim>(call, group, kv_head, query, vector, part.sum[query % 16], lane);
  }
}

extern __shared__ __align__(16) uint8_t block_shared[];

template <KvType KT, KvType VT, int kHeadDim>
__global__ void AppendKernel(AttentionArgs call) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int group_index = blockIdx.x;
  if (group_index >= call.counts->num_row_groups) return;
  const RowGroup group = call.groups[group_index];
  AppendRows<KT, VT, kHeadDim>(call, group, blockIdx.y, 0, group.position + group.num_rows,
                               threadIdx.x / 32, blockDim.x / 32, threadIdx.x % 32);
}

template <KvType KT, KvType VT, int kHeadDim, int kQueryTiles>
__global__ __launch_bounds__(kQueryTiles* kPositionWarps * 32,
                             BlocksPerSm(kQueryTiles)) void AllChunksKernel(AttentionArgs call) {
  constexpr int kWarps = kQueryTiles * kPositionWarps;
  auto& shared = *reinterpret_cast<BlockShared<kHeadDim, kQueryTiles>*>(block_shared);
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int kv_head = blockIdx.y;
  LetNextKernelStart();
  WaitForPreviousKernel();
  if (blockIdx.z >= call.counts->num_row_groups) return;
  const RowGroup group = call.groups[blockIdx.z];
  ClearQueries<kHeadDim>(call, group, kQueryTiles * 16, warp, kWarps, lane, shared.queries);
  PrepareQueries<KT, kHeadDim>(call, group, kv_head, warp, kWarps, lane, shared.queries);
  Clear(shared.total, kQueryTiles);
  __syncthreads();
  const int num_chunks = NumChunks(group.position + group.num_rows);
  for (int chunk = 0; chunk < num_chunks; ++chunk) {
    ChunkWalk<KT, kHeadDim> walk(call, group, group.position, kv_head, chunk, warp % kPositionWarps,
                                 lane);
    SumChunk<KT, VT, kHeadDim, kQueryTiles>(call, group, walk, shared);
  }
  __syncthreads();
  FinishRows<VT, kHeadDim>(call, group, kv_head, shared.total, warp, kWarps, lane);
}

// Where there is more than one chunk, MergeKernel follows.
template <KvType KT, KvType VT, int kHeadDim, int kQueryTiles>
__global__ __launch_bounds__(kQueryTiles* kPositionWarps * 32,
                             BlocksPerSm(kQueryTiles)) void OneChunkKernel(AttentionArgs call,
                                                                           RowSplit split) {
  constexpr int kWarps = kQueryTiles * kPositionWarps;
  auto& shared = *reinterpret_cast<BlockShared<kHeadDim, kQueryTiles>*>(block_shared);
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int kv_head = blockIdx.y;
  LetNextKernelStart();
  const int max_chunks = static_cast<int>(gridDim.x);
  // The last chunks are long: they begin first.
  const int chunk = max_chunks - 1 - static_cast<int>(blockIdx.x);
  const int fetch_slice = static_cast<int>(blockIdx.z) - split.num_blocks;
  if (fetch_slice >= 0) {
    FetchAhead(call, (fetch_slice * max_chunks + chunk) * gridDim.y + kv_head,
               (gridDim.z - split.num_blocks) * max_chunks * gridDim.y);
    return;
  }
  // What says where rows and pages are was written before the step's first kernel.
  const int group_index = split.parts.Quotient(blockIdx.z);
  if (group_index >= call.counts->num_row_groups) return;
  const RowGroup group = call.groups[group_index];
  const int part_rows = split.PartRows(group.num_rows);
  const int first = split.parts.Remainder(blockIdx.z) * part_rows;  // row of this block
  const RowGroup part = {.first_row = group.first_row + first,
                         .num_rows = min(group.num_rows - first, part_rows),
                         .position = group.position + first,
                         .table_offset = group.table_offset};
  if (part.num_rows <= 0 || chunk >= NumChunks(part.position + part.num_rows)) return;
  // What is new in front of the part's end.
  const int rows_before = group.rows_before + first;
  const RowGroup written = {.first_row = part.first_row - rows_before,
                            .num_rows = rows_before + part.num_rows,
                            .position = part.position - rows_before,
                            .table_offset = group.table_offset};
  if (warp == kWarps - 1) FetchChunk(call, part, kv_head, chunk, lane);
  ChunkWalk<KT, kHeadDim> walk(call, part, written.position, kv_head, chunk, warp % kPositionWarps,
                               lane);
  ClearQueries<kHeadDim>(call, part, kQueryTiles * 16, warp, kWarps, lane, shared.queries);
  Clear(shared.total, kQueryTiles);
  WaitForPreviousKernel();
  PrepareQueries<KT, kHeadDim>(call, part, kv_head, warp, kWarps, lane, shared.queries);
  AppendRows<KT, VT, kHeadDim>(call, written, kv_head, ChunkStart(chunk), ChunkStart(chunk + 1),
                               warp, kWarps, lane);
  __syncthreads();
  SumChunk<KT, VT, kHeadDim, kQueryTiles>(call, part, walk, shared);
  __syncthreads();
  if (max_chunks == 1) {
    FinishRows<VT, kHeadDim>(call, part, kv_head, shared.total, warp, kWarps, lane);
    return;
  }
  Store(shared.total, part.num_rows * call.heads.divisor,
        StoredSums<kHeadDim>(call, group_index, kv_head, max_chunks, split.num_slots), chunk,
        first * call.heads.divisor);
}

// Merges what OneChunkKernel left, a query a warp.
template <KvType VT, int kHeadDim, int kBatch>
__global__ void MergeKernel(AttentionArgs call, int max_chunks, int num_slots) {
  const int lane = threadIdx.x % 32;
  const int query = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  const int kv_head = blockIdx.y;
  LetNextKernelStart();
  if (blockIdx.z >= call.counts->num_row_groups) return;
  const RowGroup group = call.groups[blockIdx.z];
  if (query >= group.num_rows * call.heads.divisor) return;
  // Those that the row sees: of others its block left nothing.
  const int count = NumChunks(group.position + call.heads.Quotient(query) + 1);
  WaitForPreviousKernel();
  float sum = 0.0f;
  const StoredSums<kHeadDim> stored(call, blockIdx.z, kv_head, max_chunks, num_slots);
  const HeadVector<kHeadDim> total = MergeStored<kBatch>(stored, count, query, lane, &sum);
  FinishQuery<VT, kHeadDim>(call, group, kv_head, query, total, sum, lane);
}

// Launches a kernel that has a BlockShared.
template <int kHeadDim, int kQueryTiles, class... Parameters>
cudaError_t LaunchBlocks(void (*kernel)(Parameters...), dim3 grid, const LaunchOptions& options,
                         const Parameters&... parameters) {
  constexpr int kBytes = sizeof(BlockShared<kHeadDim, kQueryTiles>);
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  return Launch(kernel, grid, kQueryTiles * kPositionWarps * 32, kBytes, options, parameters...);
}

// One of two instances of `function`, by the tiles of 16 queries that a block's rows take.
template <class Function>
cudaError_t WithTiles(const AttentionArgs& call, int32_t rows, const Function& function) {
  return QueryTiles(rows, call.heads.divisor) == 1 ? function.template operator()<1>()
                                                   : function.template operator()<2>();
}

template <KvType KT, KvType VT, int kHeadDim>
cudaError_t LaunchByChunk(const AttentionArgs& call, int32_t max_rows, int32_t max_groups,
                          int32_t max_chunks, const LaunchOptions& options) {
  const RowSplit split = SplitRows(call, max_rows, max_groups, max_chunks);
  const int fetch_slices = (kFetchBlocks + max_chunks - 1) / max_chunks;
  const dim3 grid(max_chunks, call.num_kv_heads, split.num_blocks + fetch_slices);
  const cudaError_t error = WithTiles(call, split.PartRows(max_rows), [&]<int kQueryTiles>() {
    return LaunchBlocks<kHeadDim, kQueryTiles>(OneChunkKernel<KT, VT, kHeadDim, kQueryTiles>, grid,
                                               options, call, split);
  });
  if (error != cudaSuccess || max_chunks == 1) return error;
  constexpr int kWarps = 4;
  const int queries = max_rows * call.heads.divisor;
  // Code that is read for nothing takes time.
  constexpr int kFewChunks = 16;
  return Launch(max_chunks <= kFewChunks ? MergeKernel<VT, kHeadDim, kFewChunks>
                                         : MergeKernel<VT, kHeadDim, 32>,
                dim3((queries + kWarps - 1) / kWarps, call.num_kv_heads, max_groups), kWarps * 32,
                0, options, call, max_chunks, split.num_slots);
}

// Calls `function` with the KV types and head dimension of `call` as constants.
template <KvType KT, KvType VT, class Function>
cudaError_t WithHeadDim(const AttentionArgs& call, const Function& function) {
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
cudaError_t Dispatch(const AttentionArgs& call, const Function& function) {
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
  const AttentionArgs args(call);
  return Dispatch(args, [&]<KvType KT, KvType VT, int kHeadDim>() {
    if (split == AttentionSplit::kByChunk) {
      return LaunchByChunk<KT, VT, kHeadDim>(args, max_rows, max_groups, max_chunks, options);
    }
    return WithTiles(args, max_rows, [&]<int kQueryTiles>() {
      return LaunchBlocks<kHeadDim, kQueryTiles>(AllChunksKernel<KT, VT, kHeadDim, kQueryTiles>,
                                                 dim3(1, call.num_kv_heads, max_groups), options,
                                                 args);
    });
  });
}

cudaError_t LaunchAppendKv(const AttentionCall& call, int32_t max_groups,
                           const LaunchOptions& options) {
  const AttentionArgs args(call);
  return Dispatch(args, [&]<KvType KT, KvType VT, int kHeadDim>() {
    return Launch(AppendKernel<KT, VT, kHeadDim>, dim3(max_groups, call.num_kv_heads), 256, 0,
                  options, args);
  });
}

}  // namespace tandem::cuda
