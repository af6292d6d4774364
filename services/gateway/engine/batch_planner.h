// How the tokens of one step are shared between sequences. Pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/speculation/controller.h"

namespace tandem::gateway {

// Shares `budget` tokens between sequences that each lack num_missing[i]: equal parts, and
// what is left over in order. So a long prompt neither starves the short ones behind it
// nor is starved by them.
std::vector<int32_t> SharePrefill(absl::Span<const int32_t> num_missing, int32_t budget);

// Shortens drafts, the longest first, until one row for each plan and all drafts fit
// `max_rows`. Plans that lose all say so. Requires max_rows >= plans.size().
void TrimDrafts(int32_t max_rows, std::vector<DraftPlan>* plans);

}  // namespace tandem::gateway
