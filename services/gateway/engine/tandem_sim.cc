// tandem_sim: random lives of an engine on a virtual clock, each decided by its seed.
//
//   tandem_sim --seed 1 --count 10000
//   tandem_sim --steady --seed 1 --count 1000    one request of low priority under endless load
//
// Ends with 1 at the first seed that breaks a promise, and names it; a failed check aborts and
// names it too.
#include <chrono>
#include <cstdio>

#include "CLI/CLI.hpp"
#include "gtest/gtest.h"
#include "services/gateway/engine/random_run.h"
#include "services/gateway/engine/steady_run.h"

namespace {

class Totals {
 public:
  void Add(const tandem::gateway::RandomRun& run) {
    using tandem::Role;
    const tandem::gateway::SimObserver& observer = run.observer();
    num_finished_ += observer.num_finished;
    num_failed_ += observer.num_failed;
    num_refused_ += run.num_refused();
    num_preemptions_ += observer.num_preemptions();
    num_cached_ += observer.num_cached_tokens[static_cast<int>(Role::kTarget)];
    for (int i = 0; i < tandem::kNumRoles; ++i) num_lost_[i] += observer.num_lost[i];
    for (const tandem::gateway::SimWorker* worker : {&run.target(), &run.draft()}) {
      num_hangs_ += worker->num_hangs;
      num_refused_steps_ += worker->num_refused_steps;
    }
  }
  void Print() const {
    std::printf(
        "%lld answers, %lld cancelled, late or failed, %lld refused, %lld preemptions, %lld cached "
        "tokens, %lld targets and %lld drafts lost, %lld hangs, %lld steps refused\n",
        num_finished_, num_failed_, num_refused_, num_preemptions_, num_cached_, num_lost_[0],
        num_lost_[1], num_hangs_, num_refused_steps_);
  }

 private:
  long long num_finished_ = 0, num_failed_ = 0, num_refused_ = 0, num_preemptions_ = 0;
  long long num_cached_ = 0, num_hangs_ = 0, num_refused_steps_ = 0;
  long long num_lost_[tandem::kNumRoles] = {};
};

}  // namespace

int main(int argc, char** argv) {
  uint32_t first_seed = 1;
  uint32_t count = 1;
  CLI::App app("Simulates the gateway's engine with workers that die, under random load.",
               "tandem_sim");
  app.add_option("--seed", first_seed, "the first seed")->capture_default_str();
  app.add_option("--count", count, "how many, one after the other")->capture_default_str();
  bool is_steady = false;
  app.add_flag("--steady", is_steady, "a request of low priority under a load that never ends");
  CLI11_PARSE(app, argc, argv);
  int num_arguments = 1;  // none of ours are for it
  testing::InitGoogleTest(&num_arguments, argv);
  const auto start = std::chrono::steady_clock::now();
  Totals totals;
  for (uint32_t seed = first_seed; seed - first_seed < count; ++seed) {
    if (is_steady) {
      tandem::gateway::SteadyRun(seed).Run();
    } else {
      tandem::gateway::RandomRun run(seed);
      run.Run();
      totals.Add(run);
    }
    if (testing::Test::HasFailure()) {
      std::printf("seed %u breaks a promise: repeat with tandem_sim%s --seed %u\n", seed,
                  is_steady ? " --steady" : "", seed);
      return 1;
    }
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("seeds %u to %u hold, %.1f s\n", first_seed, first_seed + count - 1, seconds);
  if (!is_steady) totals.Print();
  return 0;
}
