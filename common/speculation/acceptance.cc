#include "common/speculation/acceptance.h"

#include <algorithm>
#include <numeric>

namespace tandem {
namespace {

constexpr double kPriorTrials = 4.0;     // what the prior weighs against all positions
constexpr double kPositionTrials = 5.0;  // what rate() weighs against one position

}  // namespace

void AcceptanceEstimate::Record(int32_t num_draft_tokens, int32_t num_accepted) {
  const int32_t num_tried =
      std::min({num_draft_tokens, num_accepted + 1, int32_t{kMaxDraftLength}});
  for (int32_t i = 0; i < num_tried; ++i) {
    accepted_[i] = accepted_[i] * decay_ + (i < num_accepted ? 1.0 : 0.0);
    tried_[i] = tried_[i] * decay_ + 1.0;
  }
  all_accepted_ = std::accumulate(accepted_.begin(), accepted_.end(), 0.0);
  all_tried_ = std::accumulate(tried_.begin(), tried_.end(), 0.0);
}

void AcceptanceEstimate::Fade(double factor) {
  for (double& count : accepted_) count *= factor;
  for (double& count : tried_) count *= factor;
  all_accepted_ *= factor;
  all_tried_ *= factor;
}

double AcceptanceEstimate::rate() const {
  return (all_accepted_ + kPriorTrials * prior_rate_) / (all_tried_ + kPriorTrials);
}

double AcceptanceEstimate::PriorShare() const { return kPriorTrials / (all_tried_ + kPriorTrials); }

double AcceptanceEstimate::Conditional(int32_t index) const {
  return (accepted_[index] + kPositionTrials * rate()) / (tried_[index] + kPositionTrials);
}

}  // namespace tandem
