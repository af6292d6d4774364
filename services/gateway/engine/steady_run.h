// One request of low priority under a load that never ends, all from a seed.
#pragma once

#include <cstdint>
#include <random>

#include "absl/time/time.h"
#include "services/gateway/engine/engine_sim.h"
#include "services/gateway/engine/seed_notice.h"

namespace tandem::gateway {

// Requests of higher priority come faster than they can be served, for as long as one of low
// priority is not done. Waiting is worth priority, so from some time on none that comes is
// served before it: it must be done within that time and what those before it need. A broken
// promise is a failure of the test that runs.
class SteadyRun {
 public:
  explicit SteadyRun(uint32_t seed);
  void Run();

  const SimObserver& observer() const { return sim_.observer; }

 private:
  int32_t Below(int32_t limit) { return static_cast<int32_t>(random_() % limit); }

  SimOptions MakeOptions();
  GenerationRequest MakeRequest();
  // When the low request must be done at the latest.
  absl::Duration MostTime() const;

  SeedNotice notice_;
  std::mt19937 random_;
  SimOptions options_;
  const int32_t num_ahead_;  // of higher priority, that always wait
  const int32_t priority_;   // theirs; the low one's is 0
  EngineSim sim_;
};

}  // namespace tandem::gateway
