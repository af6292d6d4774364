// Passes over one row of logits, written so that the compiler vectorizes them. Sums run
// in a fixed order: the same on every machine and in every batch.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tandem {

// Values of a group are looked at only when the group's maximum says so.
inline constexpr int32_t kRowGroupSize = 64;

// Maximum of each group of kRowGroupSize values (the last may be shorter); NaN counts as
// less than everything.
void GroupMaxima(absl::Span<const float> row, std::vector<float>* group_max);

// Index of the largest value, the lowest of equals; -1 when none is above -infinity.
int32_t ArgMax(absl::Span<const float> row);

// row[i] = (row[i] - max) / divisor.
void ShiftAndScale(absl::Span<float> row, float max, float divisor);

// row[i] = exp(row[i]) for values <= 0, exactly 0 below -87; within 2 units in the last
// place of the rest.
void ExpInPlace(absl::Span<float> row);

double Sum(absl::Span<const float> row);

// sum of exp(row[i] - max). Requires max to be the maximum.
double SumExp(absl::Span<const float> row, float max);

// The index where the running sum of non-negative weights passes uniform * their sum;
// never one of weight 0. -1 when all weights are 0.
int32_t SampleWeights(absl::Span<const float> weights, double uniform);

// A value that at least `count` values of the row reach, close to the count-th largest;
// -infinity when the groups cannot tell. `group_max` as from GroupMaxima, reordered.
float LowerBoundOfLargest(int32_t count, std::vector<float>* group_max);

}  // namespace tandem
