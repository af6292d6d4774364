#include "common/worker/draft_probs.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/base/check.h"

namespace tandem::worker {
namespace {

static_assert(kMaxSparseIds <= kMaxDraftProbsEntries);

// Copies a row; false when it is no distribution. `row` is shared with a peer, so each
// number is read once.
bool ReadRow(const DraftProbsRow& row, int32_t num_entries, int32_t vocab_size,
             SparseDistribution& probs) {
  constexpr double kSumTolerance = 1e-3;  // rounding of 256 floats is below 1e-4
  probs.ids.resize(num_entries);
  probs.probs.resize(num_entries);
  double sum = 0.0;
  for (int32_t i = 0; i < num_entries; ++i) {
    DraftProb entry;
    std::memcpy(&entry, &row.entries[i], sizeof(entry));
    if (entry.token_id < 0 || entry.token_id >= vocab_size || !(entry.prob >= 0.0f)) return false;
    probs.ids[i] = entry.token_id;
    probs.probs[i] = entry.prob;
    sum += entry.prob;
  }
  return std::abs(sum - 1.0) < kSumTolerance;
}

}  // namespace

void BeginDraftProbs(SequenceId sequence, int32_t first_position, DraftProbsSlot* slot) {
  slot->sequence_id = static_cast<int64_t>(sequence);
  slot->first_position = first_position;
  slot->num_rows = 0;
}

void AppendDraftProbs(int32_t token_id, const SparseDistribution& probs, DraftProbsSlot* slot) {
  const int32_t row_index = slot->num_rows;
  if (row_index < 0 || row_index >= kMaxDraftLength) return;  // a peer wrote over it
  const size_t count = probs.ids.size();
  TANDEM_CHECK(count <= static_cast<size_t>(kMaxDraftProbsEntries));
  DraftProbsRow& row = slot->rows[row_index];
  row.drawn_token_id = token_id;
  row.num_entries = static_cast<int32_t>(count);
  for (size_t i = 0; i < count; ++i) {
    row.entries[i] = {.token_id = probs.ids[i], .prob = probs.probs[i]};
  }
  slot->num_rows = row_index + 1;
}

bool ReadDraftProbs(const DraftProbsSlot& slot, SequenceId sequence, int32_t first_position,
                    absl::Span<const int32_t> draft_token_ids, int32_t vocab_size,
                    std::vector<SparseDistribution>& probs) {
  probs.clear();
  // The gateway may have kept fewer drafts than were drawn, never others.
  const auto count = static_cast<int32_t>(draft_token_ids.size());
  if (count > kMaxDraftLength || slot.sequence_id != static_cast<int64_t>(sequence) ||
      slot.first_position != first_position || slot.num_rows < count) {
    return false;
  }
  probs.resize(count);
  for (int32_t i = 0; i < count; ++i) {
    const int32_t num_entries = slot.rows[i].num_entries;
    if (slot.rows[i].drawn_token_id == draft_token_ids[i] && num_entries > 0 &&
        num_entries <= kMaxDraftProbsEntries &&
        ReadRow(slot.rows[i], num_entries, vocab_size, probs[i])) {
      continue;
    }
    probs.clear();
    return false;
  }
  return true;
}

}  // namespace tandem::worker
