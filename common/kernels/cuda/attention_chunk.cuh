// A block's way through one chunk of a context.
#pragma once

#include "common/kernels/cuda/attention_args.h"
#include "common/kernels/cuda/attention_merge.cuh"
#include "common/kernels/cuda/attention_tile.cuh"

namespace tandem::cuda {

// Where a warp's tiles are, one after the other.
struct TileCursor {
  const int32_t* table;
  int last_page;
  int step_pages;
  int step_slots;
  int page_positions;
  int page;
  int slot;

  __device__ __forceinline__ TileCursor(const AttentionArgs& call, const RowGroup& group,
                                        int position, int step, int end)
      : table(call.page_tables + group.table_offset),
        last_page(call.pages.Quotient(end - 1)),
        step_pages(call.pages.Quotient(step)),
        step_slots(call.pages.Remainder(step)),
        page_positions(call.page_positions),
        page(call.pages.Quotient(position)),
        slot(call.pages.Remainder(position)) {}
  __device__ __forceinline__ void Advance() {
    page += step_pages;
    slot += step_slots;
    if (slot >= page_positions) {
      slot -= page_positions;
      ++page;
    }
  }
  // Of the tile, or of the last one when there is none so far.
  __device__ __forceinline__ int64_t PageId() const { return table[min(page, last_page)]; }
};

// What a block has in shared memory.
template <int kHeadDim, int kQueryTiles>
struct BlockShared {
  __half queries[kQueryTiles * 16 * QueryStride(kHeadDim)];
  Exchange<kHeadDim, kQueryTiles> exchange;
  PartSums<kHeadDim> total[kQueryTiles];
};

// A warp's way through the tiles of a chunk. What it reads when it is made is older than the
// step: page tables and the first tile's keys, unless the step itself writes some of them.
template <KvType KT, int kHeadDim>
struct ChunkWalk {
  int begin;
  int end;
  int position;  // of the tile
  TileCursor cursor;
  const uint8_t* head;  // of page 0
  const uint8_t* page;  // of the tile
  TileKeys<KT, kHeadDim> keys;
  bool has_words = false;  // of the tile's keys

  static constexpr int kStep = kPositionWarps * kTilePositions;
  // Of 4-bit keys the next tile's come while this one's values are summed: registers allow.
  static constexpr bool kKeysAhead = KT == KvType::k4;
  static constexpr bool kFetchesFirst = kKeysAhead || kHeadDim == 64;

  // `first_new`: the first position that the step writes.
  __device__ __forceinline__ ChunkWalk(const AttentionArgs& call, const RowGroup& group,
                                       int first_new, int kv_head, int chunk, int warp, int lane)
      : begin(ChunkStart(chunk)),
        end(min(ChunkStart(chunk + 1), group.position + group.num_rows)),
        position(begin + warp * kTilePositions),
        cursor(call, group, position, kStep, end),
        head(call.kv + kv_head * call.head_stride),
        page(head + cursor.PageId() * call.page_bytes) {
    if (kFetchesFirst && position + kTilePositions <= min(first_new, end)) {
      FetchWords(call, lane);
    }
  }
  __device__ __forceinline__ void FetchWords(const AttentionArgs& call, int lane) {
    keys.LoadWords(page + call.k_offset, cursor.slot, lane);
    has_words = true;
  }
  // Whether there is another tile.
  __device__ __forceinline__ bool Advance(const AttentionArgs& call, int lane) {
    position += kStep;
    cursor.Advance();
    page = head + cursor.PageId() * call.page_bytes;
    has_words = false;
    if (kKeysAhead && position < end) FetchWords(call, lane);
    return position < end;
  }
};

// total += a chunk. Called by the whole block; the caller puts a barrier behind it.
template <KvType KT, KvType VT, int kHeadDim, int kQueryTiles>
__device__ __forceinline__ void SumChunk(const AttentionArgs& call, const RowGroup& group,
                                         ChunkWalk<KT, kHeadDim>& walk,
                                         BlockShared<kHeadDim, kQueryTiles>& shared) {
  // Values on their way before the scores are there, where registers allow.
  constexpr bool kValuesEarly = kHeadDim == 64 && VT != KvType::kF16;
  const int lane = threadIdx.x % 32;
  const int query_tile = threadIdx.x / 32 / kPositionWarps;
  const int warp = threadIdx.x / 32 % kPositionWarps;
  const __half* queries = shared.queries + query_tile * 16 * QueryStride(kHeadDim);
  WarpState<kHeadDim> state;
  bool goes_on = walk.position < walk.end;
  while (goes_on) {
    const int position = walk.position;
    if (!walk.has_words) walk.FetchWords(call, lane);
    walk.keys.LoadScales(walk.page + call.k_offset, call.page_positions, walk.cursor.slot, lane);
    TileValues<VT, kHeadDim> values;
    const uint8_t* stored = walk.page + call.v_offset;
    if (kValuesEarly) values.Load(stored, call.page_positions, walk.cursor.slot, lane);
    float scores[2][4];
    Scores<KT, kHeadDim>(queries, walk.keys, lane, scores);
    if (!kValuesEarly) values.Load(stored, call.page_positions, walk.cursor.slot, lane);
    goes_on = walk.Advance(call, lane);
    if (position + kTilePositions > group.position) {
      const int query = query_tile * 16 + lane / 4;
      const int ahead = group.position - position;
      const int limits[2] = {ahead + call.heads.Quotient(query),
                             ahead + call.heads.Quotient(query + 8)};
      Hide(limits, lane, scores);
      values.Cut(walk.end - position, lane);
    }
    uint32_t weights[4];
    Weigh(scores, state, weights);
    AddValues(weights, values, state);
  }
  const int num_tiles = (walk.end - walk.begin + kTilePositions - 1) / kTilePositions;
  MergeWarps(state, shared.exchange, query_tile, warp, min(num_tiles, kPositionWarps), lane);
  if (warp == 0) AddChunk(state, shared.total[query_tile], lane);
}

}  // namespace tandem::cuda
