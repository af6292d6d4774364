// Proposal distributions through the shared pool: the draft writes, the target reads.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/kv/pool_control.h"
#include "common/speculation/sampler.h"

namespace tandem::worker {

// Starts a slot for the drafts of `sequence` from `first_position` on: no rows yet.
void BeginDraftProbs(SequenceId sequence, int32_t first_position, DraftProbsSlot* slot);

// Adds the distribution that `token_id` was drawn from: at most kMaxDraftProbsEntries
// ids. Requires less than kMaxDraftLength rows.
void AppendDraftProbs(int32_t token_id, const SparseDistribution& probs, DraftProbsSlot* slot);

// Copies out the distributions of exactly these drafts. False, and none, when the slot
// is of another sequence, position or draft, or holds what is no distribution.
bool ReadDraftProbs(const DraftProbsSlot& slot, SequenceId sequence, int32_t first_position,
                    absl::Span<const int32_t> draft_token_ids, int32_t vocab_size,
                    std::vector<SparseDistribution>& probs);

}  // namespace tandem::worker
