// How a draft that samples chooses on the device: the greatest of logit / temperature + noise
// among the ids that truncation keeps, as TokenSampler has it, but in float, and with top_k and
// top_p to the width of a bin. The target's own choice is exact: a draft that is off is refused.
#pragma once

#include <cstdint>
#include <limits>

#include "common/kernels/cuda/row_choice.h"

namespace tandem::cuda {

// Of one sequence.
struct DraftSampling {
  float inverse_temperature = 0.0f;  // 0: the greatest logit, without noise
  // Ids from here on do not count. Where the greatest logit is of such an id, probabilities
  // are too great.
  int32_t num_ids = 0;
  uint64_t seed = 0;
  int32_t position = 0;  // of the draft's first token
  int32_t top_k = 0;     // 0 keeps all
  float top_p = 1.0f;
  // Ids are not chosen whose (logit - greatest) / temperature is below: log(min_p).
  float lowest = std::numeric_limits<float>::lowest();
};

// Where top_k or top_p ask how many the likelier ids are, and what they weigh, those near the
// greatest logit are sorted into bins by their distance from it, in temperatures. The bin in
// which a share ends is kept as a whole: mostly it has one id. What is beyond the last bin
// weighs less than 1 / 160,000 of the likeliest each.
inline constexpr int32_t kChoiceBins = 192;  // six for each lane of a warp
inline constexpr float kBinsOfTemperature = 16.0f;
inline constexpr float kChoiceReach = kChoiceBins / kBinsOfTemperature;

// A bin's number of ids above the sum of their weights, which are integers so that the order
// of adding does not matter: exp(distance from the bin's upper end), in units of 2^-16.
inline constexpr int32_t kBinWeightBits = 44;
inline constexpr float kBinWeightUnit = 0x1p-16f;

// What the blocks of a row found. A rank is of a score, and of its place in the row; 0: none.
struct NoisyChoice {
  uint64_t best[kExpSums];  // of the ids of each part of the row that are in no bin
  // All 0 from one step to the next.
  unsigned long long bins[kChoiceBins];
  unsigned long long best_of_bin[kChoiceBins];
};

// A token of a draft.
struct alignas(16) DraftedToken {
  int32_t place;  // in the row; negative: none was left to choose
  float logit;
  float probability;      // of what may be chosen
  float top_probability;  // of the likeliest
};

}  // namespace tandem::cuda
