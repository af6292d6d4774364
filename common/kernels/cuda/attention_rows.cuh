// Rows on their way into attention and out of it: queries, new keys and values, results.
#pragma once

#include "common/kernels/cuda/attention.h"
#include "common/kernels/cuda/attention_tile.cuh"
#include "common/kernels/cuda/epilogue.cuh"
#include "common/kernels/cuda/kv_append.cuh"

namespace tandem::cuda {

constexpr float kLog2E = 1.4426950408889634f;

__device__ __forceinline__ const float* HeadOfRow(const AttentionCall& call, int64_t row,
                                                  int head) {
  const int64_t width = (call.num_heads + 2 * call.num_kv_heads) * call.head_dim;
  return call.qkv + row * width + int64_t{head} * call.head_dim;
}

// Writes the key or the value of a row; called by a warp. `is_value` says which of them.
template <KvType KT, KvType VT, int kHeadDim>
__device__ __forceinline__ void AppendItem(const AttentionCall& call, const int32_t* table, int row,
                                           int position, int kv_head, bool is_value, int lane) {
  const int64_t page = table[position / call.page_positions];
  const int slot = position % call.page_positions;
  uint8_t* head = call.kv + page * call.page_bytes + kv_head * call.head_stride;
  HeadVector<kHeadDim> vector;
  if (is_value) {
    vector.Load(HeadOfRow(call, row, call.num_heads + call.num_kv_heads + kv_head), lane);
    if (VT == KvType::k4) vector.Hadamard(lane);
    uint8_t* codes = head + call.v_offset;
    uint8_t* scales = codes + call.page_positions * (kHeadDim * kBitsOf(VT) / 8);
    StoreValue<VT, kHeadDim>(vector, codes, scales, slot, lane);
    return;
  }
  vector.Load(HeadOfRow(call, row, call.num_heads + kv_head), lane);
  vector.Rope(call.rope + int64_t{row} * (call.rope_dim / 2), call.rope_dim, lane);
  if (KT == KvType::k4) vector.Hadamard(lane);
  uint8_t* codes = head + call.k_offset;
  uint8_t* scales = codes + call.page_positions * (kHeadDim * kBitsOf(KT) / 8);
  StoreKey<KT, kHeadDim>(vector, codes, scales, slot, lane);
}

// Writes keys and values of a group's rows at positions [begin, end). Called by the block; the
// last warps begin, since the first have most queries to prepare.
template <KvType KT, KvType VT, int kHeadDim>
__device__ __forceinline__ void AppendRows(const AttentionCall& call, const RowGroup& group,
                                           int kv_head, int begin, int end, int warp, int num_warps,
                                           int lane) {
  for (int item = num_warps - 1 - warp; item < 2 * group.num_rows; item += num_warps) {
    const int position = group.position + item / 2;
    if (position < begin || position >= end) continue;
    AppendItem<KT, VT, kHeadDim>(call, call.page_tables + group.table_offset,
                                 group.first_row + item / 2, position, kv_head, item % 2 == 1,
                                 lane);
  }
}

// Zeros where a tile has no query.
template <int kHeadDim>
__device__ __forceinline__ void ClearQueries(const AttentionCall& call, const RowGroup& group,
                                             int num_slots, int warp, int num_warps, int lane,
                                             __half* queries) {
  const int num_queries = group.num_rows * (call.num_heads / call.num_kv_heads);
  for (int query = num_queries + warp; query < num_slots; query += num_warps) {
    __half* target = queries + query * QueryStride(kHeadDim) + lane * (kHeadDim / 32);
#pragma unroll
    for (int i = 0; i < kHeadDim / 32; i += 2) *reinterpret_cast<uint32_t*>(target + i) = 0;
  }
}

// The queries of a group, turned and rotated like the keys, and scaled for base 2.
template <KvType KT, int kHeadDim>
__device__ __forceinline__ void PrepareQueries(const AttentionCall& call, const RowGroup& group,
                                               int kv_head, int warp, int num_warps, int lane,
                                               __half* queries) {
  const int heads = call.num_heads / call.num_kv_heads;
  const float scale = kLog2E * rsqrtf(static_cast<float>(kHeadDim));
  for (int query = warp; query < group.num_rows * heads; query += num_warps) {
    const int64_t row = group.first_row + query / heads;
    HeadVector<kHeadDim> vector;
    vector.Load(HeadOfRow(call, row, kv_head * heads + query % heads), lane);
    vector.Rope(call.rope + row * (call.rope_dim / 2), call.rope_dim, lane);
    if (KT == KvType::k4) vector.Hadamard(lane);
    __half* target = queries + query * QueryStride(kHeadDim) + lane * (kHeadDim / 32);
#pragma unroll
    for (int i = 0; i < kHeadDim / 32; i += 2) {
      *reinterpret_cast<uint32_t*>(target + i) =
          HalfPair(vector.values[i] * scale, vector.values[i + 1] * scale);
    }
  }
}

// A query's result from its sums: turned back and quantized for the output matrix. Called by
// a warp.
template <KvType VT, int kHeadDim>
__device__ __forceinline__ void FinishQuery(const AttentionCall& call, const RowGroup& group,
                                            int kv_head, int query, HeadVector<kHeadDim> vector,
                                            float sum, int lane) {
  constexpr int kPerLane = kHeadDim / 32;
  const int heads = call.num_heads / call.num_kv_heads;
  const float inverse = 1.0f / sum;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) vector.values[i] *= inverse;
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

}  // namespace tandem::cuda
