#include "services/gateway/stream_queue.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace tandem::gateway {

void StreamQueue::Add(std::shared_ptr<Stream> stream) { streams_.push_back(std::move(stream)); }

absl::Duration StreamQueue::Pass(absl::Duration now, bool some_cannot_wait) {
  const auto num_streams = static_cast<int32_t>(streams_.size());
  budget_.Begin(now, num_streams);
  absl::Duration due = absl::InfiniteDuration();
  auto kept = streams_.begin();
  auto next = streams_.begin();
  for (; next != streams_.end() && (some_cannot_wait || !budget_.IsEmpty()); ++next) {
    const absl::Duration ask_at = (*next)->Write(now, budget_);
    if (ask_at == absl::InfiniteDuration()) continue;
    if (ask_at > now) due = std::min(due, ask_at);
    if (kept != next) *kept = std::move(*next);
    ++kept;
  }
  streams_.erase(kept, next);
  // As many as now will come again with the next step.
  next_pass_ = budget_.NextPass(num_streams);
  // Whoever adds a stream until then leaves it to that pass.
  return next_pass_ > now ? std::min(due, next_pass_) : due;
}

}  // namespace tandem::gateway
