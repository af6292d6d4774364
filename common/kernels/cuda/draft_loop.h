// What lies between two tokens of a draft when nobody asks the host: the tokens that a step
// chose, the likeliest or sampled ones, become the next step's rows.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/kernels/cuda/attention.h"
#include "common/kernels/cuda/draft_choice.h"
#include "common/kernels/cuda/step_rows.h"

namespace tandem::cuda {

// Loops inside a graph: CUDA 12.4 has them too, with other calls.
inline constexpr bool kHasDraftLoop = CUDART_VERSION >= 13000;

// A sequence that drafts, as the host stages it; it moves on with the draft.
struct DraftRow {
  int32_t token_row;      // of the embedding: the last token that was run
  int32_t position;       // of it
  int32_t table_offset;   // of the sequence's page table
  int32_t max_tokens;     // above 0
  float min_probability;  // a token whose row's likeliest is below it is the last one
  int32_t num_tokens;     // drafted, 0 at first
  DraftSampling sampling;
};

inline constexpr int32_t kMaxDraftRows = 1024;

struct DraftLoopCall {
  int32_t* num_drafts = nullptr;
  DraftRow* rows = nullptr;  // [max_rows], *num_drafts of them of each logits row in order
  ExpSumsCall logits;        // of the step that ended, of each row in order
  // Of rows that sample: the id of each place, or null: its place; and what blocks find.
  const int32_t* kept_ids = nullptr;  // [logits.num_ids]
  NoisyChoice* noisy = nullptr;       // [*num_drafts], bins 0
  uint32_t* num_done = nullptr;       // 0, and 0 again afterwards
  DraftedToken* drafted = nullptr;    // [*num_drafts][max_tokens]
  int32_t max_tokens = 0;             // of any row

  // The next step, one row for each sequence. One that has ended runs its last row again, which
  // leaves the same keys and values: so rows keep their places.
  StepCounts* counts = nullptr;
  int32_t* token_rows = nullptr;
  int32_t* positions = nullptr;
  RowGroup* groups = nullptr;
};

#if CUDART_VERSION >= 13000
// Completes the choices of a step, whose ranks are there, and writes the next step; `condition`
// becomes whether any sequence goes on. Requires at most kMaxDraftRows drafts.
cudaError_t LaunchNextDrafts(const DraftLoopCall& call, int32_t max_rows,
                             cudaGraphConditionalHandle condition, const LaunchOptions& options);
#endif

}  // namespace tandem::cuda
