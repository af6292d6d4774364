// What a sampler asks of a row of logits, and what it is given where the row is far away.
#pragma once

#include <cstdint>
#include <span>

namespace tandem {

// A choice by the greatest (logit / temperature + noise of (seed, position, id)), maybe
// among those ids alone that truncation keeps.
struct CandidateQuery {
  float temperature = 0.0f;  // 0: nothing is asked
  int32_t num_ids = 0;       // ids from here on do not count
  uint64_t seed = 0;
  int32_t position = 0;     // of the token that the row decides
  bool wants_near = false;  // for truncation
};

struct alignas(8) IdLogit {
  float logit;
  int32_t id;
};

// The part of a row that decides. `scaled` is (logit - greatest) / temperature, in float.
// Ids are in no particular order. Borrowed.
struct RowCandidates {
  int32_t position = 0;   // as asked
  float greatest = 0.0f;  // logit of the ids that count
  double exp_sum = 0.0;   // of exp(scaled) over the ids that count; the same for the same row
  // Every id whose scaled + noise is not below that of the likeliest id, and maybe more:
  // the winner of all ids is one. Empty: they are too many.
  std::span<const IdLogit> contenders;
  // Every id whose scaled is at least -reach, and maybe more. Negative: none.
  std::span<const IdLogit> near;
  float reach = -1.0f;
};

// Ids near the greatest logit are kept in bands by their distance, in temperatures; a band
// that runs over takes those behind it along. Weights there are floats from 6e-6 to 1 with a
// sum below 1024: doubles add them without rounding, in any order.
inline constexpr int32_t kNearBands = 12;
inline constexpr int32_t kNearBandIds = 512;
inline constexpr float kNearBandWidth = 1.0f;
// As many are expected as the weights sum up to, the likeliest's being 1.
inline constexpr int32_t kMaxContenders = 1024;

// The reach of `num_bands` bands; less than their width, for rounding.
inline float NearReach(int32_t num_bands) {
  return static_cast<float>(num_bands) * kNearBandWidth - 1e-3f;
}

}  // namespace tandem
