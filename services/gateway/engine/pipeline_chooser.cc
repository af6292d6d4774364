#include "services/gateway/engine/pipeline_chooser.h"

#include <algorithm>
#include <cmath>

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

bool MeasuringTurns::Take() {
  if (num_left_-- > 0) return false;
  num_left_ = interval_ - 1;
  interval_ = std::min(2 * interval_, kMostInterval);
  return true;
}

void MeasuringTurns::Observe(double expected_seconds, double seconds) {
  constexpr double kTolerance = 0.2;  // steps vary by less
  if (std::abs(seconds - expected_seconds) <= kTolerance * expected_seconds) return;
  interval_ = kLeastInterval;
  num_left_ = kLeastInterval - 1;
}

}  // namespace tandem::gateway
