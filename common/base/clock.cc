#include "common/base/clock.h"

#include <chrono>

namespace tandem {
namespace {

class SteadyClock final : public Clock {
 public:
  absl::Duration Now() const override {
    return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
  }
};

}  // namespace

const Clock& Clock::Steady() {
  static const SteadyClock clock;
  return clock;
}

absl::Time SteadyNow() { return absl::UnixEpoch() + Clock::Steady().Now(); }

}  // namespace tandem
