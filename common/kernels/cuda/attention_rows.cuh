// Rows on their way into attention and out of it: queries, new keys and values, results.
#pragma once

#include "common/kernels/cuda/attention_args.h"
#include "common/kernels/cuda/attention_tile.cuh"
#include "common/kernels/cuda/epilogue.cuh"
#include "common/kernels/cuda/kv_append.cuh"

namespace tandem::cuda {

constexpr float kLog2E = 1.4426950408889634f;

__device__ __forceinline__ const float* HeadOfRow(const AttentionArgs& call, int64_t row,
                                                  int head) {
  const int64_t width = (call.num_heads + 2 * call.num_kv_heads) * call.head_dim;
  return call.qkv + row * width + int64_t{head} * call.head_dim;
}

// Writes the key or the value of a row; called by a warp. `is_value` says which of them.
template <KvType KT, KvType VT, int kHeadDim>
__device__ __forceinline__ void AppendItem(const AttentionArgs& call, const int32_t* table, int row,
                                           int position, int kv_head, bool is_value, int lane) {
  const int64_t page = table[call.pages.Quotient(position)];
  const int slot = call.pages.Remainder(position);
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
__device__ __forceinline__ void AppendRows(const AttentionArgs& call, const RowGroup& group,
                                           int kv_head, int begin, int end, int warp, int num_warps,
                                           int lane) {
#pragma unroll 1
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
__device__ __forceinline__ void ClearQueries(const AttentionArgs& call, const RowGroup& group,
                                             int num_slots, int warp, int num_warps, int lane,
                                             __half* queries) {
#pragma unroll 1
  for (int query = group.num_rows * call.heads.divisor + warp; query < num_slots;
       query += num_warps) {
    __half* target = queries + query * QueryStride(kHeadDim) + lane * (kHeadDim / 32);
#pragma unroll
    for (int i = 0; i < kHeadDim / 32; i += 2) *reinterpret_cast<uint32_t*>(target + i) = 0;
  }
}

// The queries of a group, turned and rotated like the keys, and scaled for base 2.
template <KvType KT, int kHeadDim>
__device__ __forceinline__ void PrepareQueries(const AttentionArgs& call, const RowGroup& group,
                                               int kv_head, int warp, int num_warps, int lane,
                                               __half* queries) {
  const int heads = call.heads.divisor;
  const float scale = kLog2E * rsqrtf(static_cast<float>(kHeadDim));
#pragma unroll 1
  for (int query = warp; query < group.num_rows * heads; query += num_warps) {
    const int64_t row = group.first_row + call.heads.Quotient(query);
    HeadVector<kHeadDim> vector;
    vector.Load(HeadOfRow(call, row, kv_head * heads + call.heads.Remainder(query)), lane);
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

// Writes a head of a row, kHeadDim / 32 consecutive dims a lane, as QuantizeBlock does.
template <int kHeadDim>
__device__ __forceinline__ void QuantizeHead(const Activations& out, int64_t row, int first_col,
                                             const HeadVector<kHeadDim>& vector, int lane) {
  constexpr int kPerLane = kHeadDim / 32;
  constexpr int kLanes = 32 / kPerLane;  // of a block of 32 columns
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) largest = max(largest, MagnitudeBits(vector.values[i]));
#pragma unroll
  for (int stride = 1; stride < kLanes; stride *= 2) {
    largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, stride));
  }
  const BlockCodes codes(__uint_as_float(largest));
  uint32_t word = 0;
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int code = codes.Of(vector.values[i]);
    word |= (static_cast<uint32_t>(code) & 0xffu) << (8 * i);
    sum += code;
  }
#pragma unroll
  for (int stride = 1; stride < kLanes; stride *= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, stride);
  }
  const int col = first_col + lane * kPerLane;
  int8_t* target = out.codes + out.CodeAt(row, col);
  if constexpr (kPerLane == 4) {
    *reinterpret_cast<uint32_t*>(target) = word;
  } else {
    *reinterpret_cast<uint16_t*>(target) = static_cast<uint16_t>(word);
  }
  if (lane % kLanes == 0) codes.StoreScale(out, row, col / kScaleCols, sum);
}

// A query's result from its sums: turned back and quantized for the output matrix. Called by
// a warp.
template <KvType VT, int kHeadDim>
__device__ __forceinline__ void FinishQuery(const AttentionArgs& call, const RowGroup& group,
                                            int kv_head, int query, HeadVector<kHeadDim> vector,
                                            float sum, int lane) {
  const float inverse = __fdividef(1.0f, sum);
#pragma unroll
  for (int i = 0; i < kHeadDim / 32; ++i) vector.values[i] *= inverse;
  if (VT == KvType::k4) vector.Hadamard(lane);
  const int row = call.heads.Quotient(query);
  const int head = kv_head * call.heads.divisor + query - row * call.heads.divisor;
  QuantizeHead(call.out, group.first_row + row, head * kHeadDim, vector, lane);
}

}  // namespace tandem::cuda
