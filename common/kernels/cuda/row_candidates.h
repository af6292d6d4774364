// The part of each row of logits that decides what is sampled, as RowCandidates has it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/kernels/cuda/step_rows.h"
#include "common/kernels/row_candidates.h"

namespace tandem::cuda {

inline constexpr int32_t kCandidateParts = 32;

// A row's query, and what was found; counts are cleared before. A count above its capacity
// says that it ran over, not how far.
struct CandidateRow {
  CandidateQuery query;
  int32_t num_contenders;
  int32_t num_near[kNearBands];
  float exp_sums[kCandidateParts];  // the row in as many parts; NaN when one is not finite
};

// The ids found, in any order.
struct CandidateIds {
  IdLogit contenders[kMaxContenders];
  IdLogit near[kNearBands][kNearBandIds];
};

struct CandidatesCall {
  const float* logits = nullptr;  // [rows][stride]
  int64_t stride = 0;
  int32_t num_logits = 0;             // of a row, the first of it
  const int32_t* kept_ids = nullptr;  // [num_logits] the id of each, or null: its place
  const int32_t* num_rows = nullptr;
  const RowChoice* choices = nullptr;  // [rows], ranks and sums
  CandidateRow* rows = nullptr;        // [rows]
  // [rows] in host memory that the device writes: only what there is crosses over.
  CandidateIds* ids = nullptr;
};

cudaError_t LaunchCandidates(const CandidatesCall& call, int32_t max_rows,
                             const LaunchOptions& options);

}  // namespace tandem::cuda
