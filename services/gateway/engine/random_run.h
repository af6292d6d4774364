// One random life of an engine: requests, deaths, cancels, full pools, all from a seed.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/gateway/engine/engine_sim.h"
#include "services/gateway/engine/seed_notice.h"

namespace tandem::gateway {

// How the target's faults end a request that they hit.
inline constexpr absl::string_view kHandedOn = "a page was handed on";
inline constexpr absl::string_view kSpoiled = "the logits are not finite";
inline constexpr absl::string_view kRefused = "the step is refused";

// Whatever happens to workers, pages and clients: each answer is the target's own, told once;
// pages and references add up after each round; nobody waits for ever; and everything is
// free in the end. Broken promises are failures of the test that runs.
class RandomRun {
 public:
  explicit RandomRun(uint32_t seed);
  void Run();

  const SimObserver& observer() const { return sim_.observer; }
  const SimWorker& target() const { return sim_.target; }
  const SimWorker& draft() const { return sim_.draft; }
  int32_t num_refused() const { return num_refused_; }

 private:
  int32_t Below(int32_t limit) { return static_cast<int32_t>(random_() % limit); }
  double Uniform() { return std::uniform_real_distribution<double>(0.0, 1.0)(random_); }

  SimOptions MakeOptions();
  std::vector<int32_t> MakePrompt();
  GenerationRequest MakeRequest();
  void SubmitSome();
  void CauseTrouble();
  void KillSomebody();
  void FailSomething();
  void Cancel(int32_t index);
  void CheckRound();
  void CheckAnswers();
  void CheckAnswer(size_t index);
  void CheckVictims();
  void CheckFinished(const SimClient& client, const GenerationRequest& request,
                     const ExpectedAnswer& expected);

  SeedNotice notice_;
  std::mt19937 random_;
  SimOptions options_;
  EngineSim sim_;
  int32_t num_pending_ = 0;
  int32_t num_refused_ = 0;
  // By request that was let in:
  std::vector<GenerationRequest> requests_;
  std::vector<SimClient*> clients_;
  std::vector<SequenceId> ids_;
  std::vector<bool> was_cancelled_;
};

}  // namespace tandem::gateway
