// Waiting for another process without sleeping.
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "common/base/clock.h"

namespace tandem {

// Looks again and again for less than a sleep and a wake-up cost. A step of a model takes
// milliseconds: who waits for one would spin in vain each time, so after a few waits of no use
// it is left, and tried again once in a while. Not thread-safe.
class Spin {
 public:
  // Longer would take a core from the other worker.
  static constexpr absl::Duration kTime = absl::Microseconds(20);
  static constexpr int32_t kInVain = 4;      // waits in a row, until it is left
  static constexpr int32_t kWaitsLeft = 64;  // without it, until it is tried again

  // Whether `ready` was true, first or last.
  template <class Ready>
  bool Until(Ready ready) {
    if (ready()) return true;
    if (num_late_ < kInVain && Look(kTime, ready)) {
      num_late_ = 0;
      return true;
    }
    if (++num_late_ == kInVain + kWaitsLeft) num_late_ = kInVain - 1;
    return false;
  }

  // Looks for so long at most.
  template <class Ready>
  static bool Look(absl::Duration time, Ready ready) {
    const absl::Time end = SteadyNow() + time;
    do {
      for (int32_t i = 0; i < kPausesPerLook; ++i) {
        Pause();
        if (ready()) return true;
      }
    } while (SteadyNow() < end);
    return false;
  }

 private:
  static constexpr int32_t kPausesPerLook = 8;  // the time is looked up between them

  static void Pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  int32_t num_late_ = 0;  // waits in a row that it did not end
};

}  // namespace tandem
