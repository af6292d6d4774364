// Time as an argument, so that the scheduler runs on a virtual clock in tests.
#pragma once

#include "absl/time/time.h"

namespace tandem {

// Monotonic time. Values of two processes cannot be compared. Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // Time since an arbitrary fixed point; never goes back.
  virtual absl::Duration Now() const = 0;

  // The machine's steady clock; lives for ever.
  static const Clock& Steady();
};

// The steady clock as an absl::Time, for deadlines and spans within this process: a machine
// whose time of day is set makes no wait longer or shorter. No date, and nothing for gRPC.
absl::Time SteadyNow();

// A clock that moves only when told to. Not thread-safe.
class VirtualClock final : public Clock {
 public:
  absl::Duration Now() const override { return now_; }
  void Advance(absl::Duration by) { now_ += by; }

 private:
  absl::Duration now_ = absl::ZeroDuration();
};

}  // namespace tandem
