// What is known of a row of logits without the row.
#pragma once

#include <cstdint>

namespace tandem::cuda {

inline constexpr int32_t kExpSums = 14;

struct alignas(16) RowChoice {
  // The bits of the greatest logit in an order as that of the floats, then the complement of its
  // id: the smallest of equals is the greatest. A row that has a NaN gives some id.
  uint64_t rank;
  float exp_sums[kExpSums];  // of exp(logit - greatest logit), the row in as many parts
};

}  // namespace tandem::cuda
