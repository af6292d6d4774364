// What the steps of a round add to the metrics.
#include <algorithm>
#include <string>
#include <utility>

#include "services/gateway/metrics_observer.h"

namespace tandem::gateway {

void MetricsObserver::OnStep(const StepInfo& info) {
  const char* role = RoleName(info.role);
  metrics_->Observe(Metric::kStepDuration, {role, "round_trip"},
                    absl::ToDoubleSeconds(info.round_trip));
  metrics_->Observe(Metric::kStepDuration, {role, "compute"}, absl::ToDoubleSeconds(info.compute));
  metrics_->Observe(Metric::kStepDuration, {role, "sample"}, absl::ToDoubleSeconds(info.sample));
  metrics_->Observe(Metric::kBatchSize, {role}, info.num_sequences);
}

void MetricsObserver::OnSequenceStep(const SequenceStepInfo& info) {
  num_generated_ += std::max(0, info.num_committed);
  if (info.source == DraftSource::kNone || info.num_draft_tokens == 0) {
    if (!info.bypass_reason.empty()) ++num_bypassed_[info.bypass_reason];
    return;
  }
  const char* source = info.source == DraftSource::kDraft ? "draft" : "lookup";
  metrics_->Add(Metric::kSpecDrafts, {source});
  metrics_->Add(Metric::kSpecDraftTokens, {source}, info.num_draft_tokens);
  metrics_->Add(Metric::kSpecAcceptedTokens, {source}, info.num_accepted);
  for (int32_t i = 0; i < info.num_accepted; ++i) {
    metrics_->Add(Metric::kSpecAcceptedPerPosition, {std::to_string(i)});
  }
}

void MetricsObserver::OnFirstToken(absl::Duration queue, absl::Duration time_to_first_token) {
  metrics_->Observe(Metric::kRequestQueue, absl::ToDoubleSeconds(queue));
  metrics_->Observe(Metric::kTimeToFirstToken, absl::ToDoubleSeconds(time_to_first_token));
}

void MetricsObserver::OnInterTokenLatency(absl::Duration since_last_commit, int32_t num_tokens) {
  if (num_tokens < 1) return;
  metrics_->Observe(Metric::kInterTokenLatency,
                    absl::ToDoubleSeconds(since_last_commit) / num_tokens);
}

// A step of a large batch would look up the same series for each sequence.
void MetricsObserver::CountRound() {
  metrics_->Add(Metric::kGenerationTokens, {}, std::exchange(num_generated_, 0));
  for (auto& [reason, count] : num_bypassed_) {
    if (count > 0) metrics_->Add(Metric::kSpecBypass, {reason}, std::exchange(count, 0));
  }
}

}  // namespace tandem::gateway
