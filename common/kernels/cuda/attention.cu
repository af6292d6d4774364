#include "common/kernels/cuda/attention.h"
#include "common/kernels/cuda/attention_chunk.cuh"
#include "common/kernels/cuda/attention_rows.cuh"
#include "common/kernels/cuda/launch.cuh"

namespace tandem::cuda {
namespace {

// Registers for 16 warps on a processor.
constexpr int BlocksPerSm(int query_tiles) { return 2 / query_tiles; }

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

// Brings the K and V of a chunk on their way before anybody waits for them. Called by a warp.
__device__ __forceinline__ void FetchChunk(const AttentionCall& call, const RowGroup& group,
                                           int kv_head, int chunk, int lane) {
  const int last = group.position + group.num_rows - 1;
  const int end = min(ChunkStart(chunk + 1), last + 1);
  const int32_t* table = call.page_tables + group.table_offset;
  for (int page = ChunkStart(chunk) / call.page_positions + lane; page * call.page_positions < end;
       page += 32) {
    // K and V of a head lie side by side.
    PrefetchToL2(
        call.kv + table[page] * call.page_bytes + call.k_offset + kv_head * call.head_stride,
        static_cast<int>(call.head_stride));
  }
}

template <KvType VT, int kHeadDim>
__device__ __forceinline__ void FinishRows(const AttentionCall& call, const RowGroup& group,
                                           int kv_head, const PartSums<kHeadDim>* sums, int warp,
                                           int num_warps, int lane) {
  const int num_queries = group.num_rows * (call.num_heads / call.num_kv_heads);
  for (int query = warp; query < num_queries; query += num_warps) {
    const PartSums<kHeadDim>& part = sums[query / 16];
    HeadVector<kHeadDim> vector;
    vector.Load(part.out[query % 16], lane);
    FinishQuery<VT, kHeadDim>(call, group, kv_head, query, vector, part.sum[query % 16], lane);
  }
}

extern __shared__ __align__(16) uint8_t block_shared[];

template <KvType KT, KvType VT, int kHeadDim>
__global__ void AppendKernel(AttentionCall call) {
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
                             BlocksPerSm(kQueryTiles)) void AllChunksKernel(AttentionCall call) {
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
    ChunkWalk<KT, kHeadDim> walk(call, group, kv_head, chunk, warp % kPositionWarps, lane);
    SumChunk<KT, VT, kHeadDim, kQueryTiles>(call, group, walk, shared);
  }
  __syncthreads();
  FinishRows<VT, kHeadDim>(call, group, kv_head, shared.total, warp, kWarps, lane);
}

// Where there is more than one chunk, MergeKernel follows.
template <KvType KT, KvType VT, int kHeadDim, int kQueryTiles>
__global__ __launch_bounds__(kQueryTiles* kPositionWarps * 32,
                             BlocksPerSm(kQueryTiles)) void OneChunkKernel(AttentionCall call) {
  constexpr int kWarps = kQueryTiles * kPositionWarps;
  auto& shared = *reinterpret_cast<BlockShared<kHeadDim, kQueryTiles>*>(block_shared);
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int kv_head = blockIdx.y;
  LetNextKernelStart();
  const int max_chunks = static_cast<int>(gridDim.x) - kFetchBlocks;
  // The last chunks are long: they begin first.
  const int chunk = max_chunks - 1 - static_cast<int>(blockIdx.x);
  if (chunk < 0) {
    if (blockIdx.z == 0) {
      FetchAhead(call, (-1 - chunk) * gridDim.y + kv_head, kFetchBlocks * gridDim.y);
    }
    return;
  }
  // What says where rows and pages are was written before the step's first kernel.
  if (blockIdx.z >= call.counts->num_row_groups) return;
  const RowGroup group = call.groups[blockIdx.z];
  if (chunk >= NumChunks(group.position + group.num_rows)) return;
  if (warp == kWarps - 1) FetchChunk(call, group, kv_head, chunk, lane);
  ChunkWalk<KT, kHeadDim> walk(call, group, kv_head, chunk, warp % kPositionWarps, lane);
  ClearQueries<kHeadDim>(call, group, kQueryTiles * 16, warp, kWarps, lane, shared.queries);
  Clear(shared.total, kQueryTiles);
  WaitForPreviousKernel();
  PrepareQueries<KT, kHeadDim>(call, group, kv_head, warp, kWarps, lane, shared.queries);
  AppendRows<KT, VT, kHeadDim>(call, group, kv_head, ChunkStart(chunk), ChunkStart(chunk + 1), warp,
                               kWarps, lane);
  __syncthreads();
  SumChunk<KT, VT, kHeadDim, kQueryTiles>(call, group, walk, shared);
  __syncthreads();
  if (max_chunks == 1) {
    FinishRows<VT, kHeadDim>(call, group, kv_head, shared.total, warp, kWarps, lane);
    return;
  }
  Store(shared.total, group.num_rows * (call.num_heads / call.num_kv_heads),
        StoredSums<kHeadDim>(call, blockIdx.z, kv_head, max_chunks, kQueryTiles * 16), chunk);
}

// Merges what OneChunkKernel left, a query a warp.
template <KvType VT, int kHeadDim>
__global__ void MergeKernel(AttentionCall call, int max_chunks, int num_slots) {
  const int lane = threadIdx.x % 32;
  const int query = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  const int kv_head = blockIdx.y;
  LetNextKernelStart();
  if (blockIdx.z >= call.counts->num_row_groups) return;
  const RowGroup group = call.groups[blockIdx.z];
  if (query >= group.num_rows * (call.num_heads / call.num_kv_heads)) return;
  const int count = NumChunks(group.position + group.num_rows);
  WaitForPreviousKernel();
  float sum = 0.0f;
  const StoredSums<kHeadDim> stored(call, blockIdx.z, kv_head, max_chunks, num_slots);
  const HeadVector<kHeadDim> total = MergeStored(stored, count, query, lane, &sum);
  FinishQuery<VT, kHeadDim>(call, group, kv_head, query, total, sum, lane);
}

// Launches a kernel that has a BlockShared.
template <int kHeadDim, int kQueryTiles>
cudaError_t LaunchBlocks(void (*kernel)(AttentionCall), dim3 grid, const AttentionCall& call,
                         const LaunchOptions& options) {
  constexpr int kBytes = sizeof(BlockShared<kHeadDim, kQueryTiles>);
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  return Launch(kernel, grid, kQueryTiles * kPositionWarps * 32, kBytes, options, call);
}

template <KvType KT, KvType VT, int kHeadDim, int kQueryTiles>
cudaError_t LaunchTiles(const AttentionCall& call, AttentionSplit split, int32_t max_rows,
                        int32_t max_groups, int32_t max_chunks, const LaunchOptions& options) {
  if (split == AttentionSplit::kNone) {
    return LaunchBlocks<kHeadDim, kQueryTiles>(AllChunksKernel<KT, VT, kHeadDim, kQueryTiles>,
                                               dim3(1, call.num_kv_heads, max_groups), call,
                                               options);
  }
  const cudaError_t error = LaunchBlocks<kHeadDim, kQueryTiles>(
      OneChunkKernel<KT, VT, kHeadDim, kQueryTiles>,
      dim3(max_chunks + kFetchBlocks, call.num_kv_heads, max_groups), call, options);
  if (error != cudaSuccess || max_chunks == 1) return error;
  constexpr int kWarps = 4;
  const int queries = max_rows * (call.num_heads / call.num_kv_heads);
  return Launch(MergeKernel<VT, kHeadDim>,
                dim3((queries + kWarps - 1) / kWarps, call.num_kv_heads, max_groups), kWarps * 32,
                0, options, call, max_chunks, kQueryTiles * 16);
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
  const bool one_tile = QueryTiles(max_rows, call.num_heads / call.num_kv_heads) == 1;
  return Dispatch(call, [&]<KvType KT, KvType VT, int kHeadDim>() {
    return one_tile ? LaunchTiles<KT, VT, kHeadDim, 1>(call, split, max_rows, max_groups,
                                                       max_chunks, options)
                    : LaunchTiles<KT, VT, kHeadDim, 2>(call, split, max_rows, max_groups,
                                                       max_chunks, options);
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
