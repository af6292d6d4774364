// How many messages a second the gateway writes, for all its streams together.
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace tandem::gateway {

// A bucket that fills with time. Messages are given out in passes over the streams that have
// something to write, and in groups: waking the threads that send one costs as much as a few
// more of them. Knows no clock. Not thread-safe.
class MessageBudget {
 public:
  // Messages a second; 0: no limit.
  explicit MessageBudget(double rate);

  // Begins a pass over `num_streams`. `now` never goes back.
  void Begin(absl::Duration now, int32_t num_streams);
  // Whether a message that can wait goes in this pass.
  bool Take();
  // Nothing that can wait goes in this pass any more.
  bool IsEmpty() const { return rate_ != 0.0 && (!is_open_ || messages_ < 1.0); }
  // When the next pass over `num_streams` gives messages; not after the last `now`: at once.
  absl::Duration NextPass(int32_t num_streams) const;

 private:
  // What must be there before a pass gives any.
  double Needed(int32_t num_streams) const;

  double rate_;
  double max_saved_;  // messages that time without any saves up
  double messages_ = 0.0;
  bool is_open_ = false;
  absl::Duration now_ = -absl::InfiniteDuration();  // of the last pass
};

}  // namespace tandem::gateway
