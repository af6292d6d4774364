#include "services/gateway/engine/pipeline_chooser.h"

#include <algorithm>

namespace tandem::gateway {

void PipelineChooser::Begin(bool is_trial) {
  is_trial_ = is_trial;
  num_rounds_ = 0;
  rate_ = {};
}

void PipelineChooser::Observe(int32_t num_tokens, absl::Duration duration) {
  if (mode_ != Pipelining::kAuto) return;
  ++num_rounds_;
  const int32_t num_all = is_trial_ ? kSettlingRounds + kTrialRounds : interval_;
  if (num_rounds_ > num_all - kTrialRounds) {
    rate_.num_tokens += num_tokens;
    rate_.duration += duration;
  }
  if (num_rounds_ < num_all) return;
  const double rate = rate_.PerSecond();
  if (!is_trial_) {
    present_rate_ = rate;
    uses_halves_ = !uses_halves_;
    Begin(/*is_trial=*/true);
    return;
  }
  if (rate > kLeastGain * present_rate_) {
    interval_ = kFirstInterval;
  } else {
    uses_halves_ = !uses_halves_;  // back
    interval_ = std::min(2 * interval_, kLastInterval);
  }
  Begin(/*is_trial=*/false);
}

}  // namespace tandem::gateway
