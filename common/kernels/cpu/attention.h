// Paged attention over f16, 8-bit and rotated 4-bit KV, and the append that feeds it.
//
// Batch-invariant: the context is cut into fixed spans of positions (whole pages), a
// row's partial results are combined in ascending order, and neither depends on the
// other rows or on the number of threads. The rows of one sequence and the query
// heads of one KV head share each dequantized tile. No score matrix is kept
// (Dao 2023, FlashAttention-2: running maximum and sum).
#pragma once

#include <cstdint>
#include <memory>

#include "common/kernels/cpu/thread_pool.h"
#include "common/kernels/kv_layout.h"

namespace tandem::cpu {

// One sequence's rows in a step: consecutive positions from start_position.
struct AttentionSequence {
  const int32_t* page_table = nullptr;  // page numbers; entry p holds positions
                                        // [p * page_positions, (p + 1) * page_positions)
  int32_t start_position = 0;           // of its first row
  int32_t num_rows = 0;
  int32_t first_row = 0;  // index of its first row in q, k, v and out
};

struct KvAppendArgs {
  const float* k = nullptr;  // [rows, num_kv_heads * head_dim], after RoPE, row stride k_stride
  const float* v = nullptr;  // likewise
  int64_t k_stride = 0;
  int64_t v_stride = 0;
  const AttentionSequence* sequences = nullptr;
  int32_t num_sequences = 0;
  int32_t layer = 0;
  uint8_t* pool = nullptr;  // base of page 0
  int64_t pool_page_bytes = 0;
  KvLayout layout;
  // For k4 K, may be null: KeyFeedback::Matrices(layer). Same bytes, less error of scores.
  const float* k_feedback = nullptr;
};

// Quantizes and writes the K and V of each row to its page slot.
void KvAppend(const KvAppendArgs& args, ThreadPool& pool);

struct AttentionArgs {
  const float* q = nullptr;  // [rows, num_heads * head_dim], after RoPE, row stride q_stride
  int64_t q_stride = 0;
  float* out = nullptr;  // [rows, num_heads * head_dim], row stride out_stride
  int64_t out_stride = 0;
  int32_t num_heads = 0;                         // a multiple of layout.num_kv_heads
  float scale = 0.0f;                            // of the scores, usually 1 / sqrt(head_dim)
  const AttentionSequence* sequences = nullptr;  // row r attends positions <= its own
  int32_t num_sequences = 0;
  int32_t layer = 0;
  const uint8_t* pool = nullptr;
  int64_t pool_page_bytes = 0;
  KvLayout layout;
};

// Scratch memory of attention: made once for the largest step, reused.
class AttentionWorkspace {
 public:
  AttentionWorkspace(int32_t max_rows, int32_t max_positions, int32_t num_heads, int32_t head_dim,
                     int32_t num_threads);
  ~AttentionWorkspace();
  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// Requires that positions 0 .. start_position + num_rows - 1 were appended.
void Attention(const AttentionArgs& args, AttentionWorkspace& workspace, ThreadPool& pool);

// The specification: dequantizes, scores and softmax in double precision.
void AttentionRef(const AttentionArgs& args);

}  // namespace tandem::cpu
