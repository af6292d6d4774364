// How long a wait for another process will take, from the last ones.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <thread>

#include "absl/time/time.h"

namespace tandem {

// Steps of a model on a GPU take a millisecond or two, each about as long as the last: who waits
// for one sleeps nearly as long and looks without sleeping for the rest, which spares it the time
// that a core needs to wake up (on virtual machines 50 us and more, twice for each step). Longer
// waits lose little by that and are slept through, as are those that differ. Not thread-safe.
class WaitForecast {
 public:
  // Forecasts nothing with fewer `num_cores`: whoever is waited for may want this one.
  explicit WaitForecast(
      int32_t num_cores = static_cast<int32_t>(std::thread::hardware_concurrency()))
      : has_cores_(num_cores >= kLeastCores) {}

  static constexpr int32_t kLeastCores = 6;
  static constexpr absl::Duration kLongest = absl::Microseconds(2500);  // of a wait
  static constexpr absl::Duration kSpread = absl::Microseconds(200);    // of the last ones
  // Before and after which what is waited for should come. A sleep ends up to 100 us late.
  static constexpr absl::Duration kEarly = absl::Microseconds(150);
  static constexpr absl::Duration kLate = absl::Microseconds(150);

  void Record(absl::Duration waited) { last_[num_recorded_++ % kNumLast] = waited; }

  struct Forecast {
    absl::Duration sleep;  // from the beginning of the wait
    absl::Duration look;   // after that
  };
  // Nothing where it cannot be told, or is not worth it. One or two odd waits of the last eight do
  // not count.
  std::optional<Forecast> Next() const {
    if (!has_cores_ || num_recorded_ < kNumLast) return std::nullopt;
    std::array<absl::Duration, kNumLast> sorted = last_;
    std::sort(sorted.begin(), sorted.end());
    const absl::Duration first = sorted[1];
    const absl::Duration last = sorted[kNumLast - 3];
    if (last > kLongest || last - first > kSpread) return std::nullopt;
    const absl::Duration sleep = std::max(first - kEarly, absl::ZeroDuration());
    return Forecast{.sleep = sleep, .look = last + kLate - sleep};
  }

 private:
  static constexpr int64_t kNumLast = 8;

  bool has_cores_;
  int64_t num_recorded_ = 0;
  std::array<absl::Duration, kNumLast> last_ = {};
};

}  // namespace tandem
