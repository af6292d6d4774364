// Attention over paged KV for decodes, verifies and prompts, and the writing of new keys
// and values. All pointers are device memory, borrowed.
//
// In a page, (layer, KV head) has a K and a V region (KvLayout). On this backend a region
// holds first the codes, then the scales, f16 [position][head_dim / 32]. Codes are in the
// order in which tensor cores want them (kv_format.cuh).
//
// A context is cut into chunks at fixed positions, whatever the rows that look at it:
// each chunk is summed on its own and the chunks are merged in order. So a row has the
// same bits alone, in a verify and in a prompt.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/kernels/cuda/activations.h"
#include "common/kernels/cuda/matmul.h"
#include "common/kernels/host_device.h"
#include "common/kernels/kv_layout.h"

namespace tandem::cuda {

inline constexpr int32_t kMaxGroupRows = 8;
inline constexpr int32_t kTileQueries = 16;
inline constexpr int32_t kMaxGroupQueries = 32;
inline constexpr int32_t kTilePositions = 16;  // page_positions is a multiple of it

// Short chunks first, so that a short context keeps many processors busy; longer ones after
// them, so that a long one does not drown in merging.
struct ChunkSpan {
  int32_t chunk_positions;
  int32_t end;  // positions up to here are cut so
};
inline constexpr int32_t kNumChunkSpans = 3;

TANDEM_HOST_DEVICE constexpr ChunkSpan ChunkSpanAt(int32_t index) {
  return index == 0 ? ChunkSpan{256, 2048}
                    : (index == 1 ? ChunkSpan{512, 16384} : ChunkSpan{1024, 1 << 30});
}
// The first position of a chunk.
TANDEM_HOST_DEVICE constexpr int32_t ChunkStart(int32_t chunk) {
  int32_t begin = 0;
  for (int32_t i = 0; i < kNumChunkSpans; ++i) {
    const ChunkSpan span = ChunkSpanAt(i);
    const int32_t count = (span.end - begin) / span.chunk_positions;
    if (chunk <= count || i + 1 == kNumChunkSpans) return begin + chunk * span.chunk_positions;
    chunk -= count;
    begin = span.end;
  }
  return begin;
}
// Chunks of a context of `positions`.
TANDEM_HOST_DEVICE constexpr int32_t NumChunks(int32_t positions) {
  int32_t begin = 0;
  int32_t chunks = 0;
  for (int32_t i = 0; i < kNumChunkSpans; ++i) {
    const ChunkSpan span = ChunkSpanAt(i);
    const int32_t here = (positions < span.end ? positions : span.end) - begin;
    chunks += (here + span.chunk_positions - 1) / span.chunk_positions;
    if (positions <= span.end) break;
    begin = span.end;
  }
  return chunks;
}

// Rows of one sequence that look at its context together.
struct RowGroup {
  int32_t first_row;        // in the step
  int32_t num_rows;         // 1..GroupRows(...)
  int32_t position;         // of the first row
  int32_t table_offset;     // of the sequence's page table
  int32_t rows_before = 0;  // of the sequence in this step, in front of first_row
};

// Rows that fit a group: as many as share a tile of kMaxGroupQueries with their heads.
constexpr int32_t GroupRows(int32_t heads_per_kv_head) {
  const int32_t rows = kMaxGroupQueries / heads_per_kv_head;
  return rows < kMaxGroupRows ? rows : kMaxGroupRows;
}

struct AttentionCall {
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;  // 64 or 128
  int32_t rope_dim = 0;
  KvType k_type = KvType::k4;  // as v_type, or k8 over k4
  KvType v_type = KvType::k4;

  const float* qkv = nullptr;    // [rows][(num_heads + 2 * num_kv_heads) * head_dim]
  const float2* rope = nullptr;  // [rows][rope_dim / 2] cosine, sine
  // These three are written before the step's first kernel.
  const RowGroup* groups = nullptr;
  const StepCounts* counts = nullptr;
  const int32_t* page_tables = nullptr;
  int32_t page_positions = 0;
  uint8_t* kv = nullptr;  // page 0
  int64_t page_bytes = 0;
  int64_t k_offset = 0;     // in a page: K of this layer, KV head 0
  int64_t v_offset = 0;     // V of it
  int64_t head_stride = 0;  // from one KV head to the next

  float* partial = nullptr;    // PartialFloats(...)
  Activations out;             // [rows][num_heads * head_dim]
  int32_t num_processors = 1;  // of the device
  // A short context keeps few processors busy: the others fetch.
  WeightsAhead ahead[2];
};

// Floats of `partial` when groups * chunks * tiles of 16 queries of a launch are at most
// `tiles`.
constexpr int64_t PartialFloats(int32_t tiles, int32_t num_kv_heads, int32_t head_dim) {
  return int64_t{tiles} * num_kv_heads * kTileQueries * (head_dim + 2);
}
constexpr int32_t QueryTiles(int32_t max_rows, int32_t heads_per_kv_head) {
  return (max_rows * heads_per_kv_head + kTileQueries - 1) / kTileQueries;
}

// How the chunks of a group are shared out; the result is the same.
enum class AttentionSplit {
  // A block each, or several that share out the group's rows while processors are idle: for few
  // groups. Each block writes the new K and V that it reads, the same bytes where others do so
  // too: for few rows of a sequence.
  kByChunk,
  kNone,  // one block for all of them; K and V were written by LaunchAppendKv
};

// `max_rows`: of any group, `max_groups` and (kByChunk) `max_chunks`: upper bounds of the launch.
cudaError_t LaunchAttention(const AttentionCall& call, AttentionSplit split, int32_t max_rows,
                            int32_t max_groups, int32_t max_chunks, const LaunchOptions& options);

// Writes K and V of all rows.
cudaError_t LaunchAppendKv(const AttentionCall& call, int32_t max_groups,
                           const LaunchOptions& options);

}  // namespace tandem::cuda
