#include "common/speculation/prospect.h"

#include <algorithm>

namespace tandem {
namespace {

// A looked-up draft is taken when it promises this share of the draft model's tokens.
constexpr double kLookupPreference = 0.8;

}  // namespace

void Survivals::Append(double probability) {
  gains_[size_ + 1] = gains_[size_] + probability;
  ++size_;
  for (size_t level = 0; level < lengths_.size(); ++level) {
    if (probability >= kLeastSurvivals[level]) lengths_[level] = size_;
  }
}

int32_t Survivals::LengthAt(int32_t depth, int32_t level, int32_t least) const {
  return std::max(std::min(depth, lengths_[level]), std::min(least, size_));
}

Prospect::Draft Prospect::Choose(const Choice& choice) const {
  const int32_t least = request->min_tokens;
  const int32_t lookup_length = lookup.LengthAt(choice.depth, choice.level, least);
  const int32_t draft_length =
      draft.LengthAt(choice.asks_draft ? choice.depth : 0, choice.level, least);
  const double lookup_gain = lookup.Gain(lookup_length);
  const double draft_gain = draft.Gain(draft_length);
  if (lookup_length > 0 && lookup_gain >= kLookupPreference * draft_gain) {
    return {DraftSource::kLookup, lookup_length, lookup_gain};
  }
  if (draft_length > 0) return {DraftSource::kDraft, draft_length, draft_gain};
  return {};
}

}  // namespace tandem
