// Halves on machines that work at the same time, and on one that both workers share.
#include <algorithm>
#include <memory>
#include <vector>

#include "common/tokenizer/tokenizer.h"
#include "gtest/gtest.h"
#include "services/gateway/engine/engine_sim.h"

namespace tandem::gateway {
namespace {

// A simulated worker whose machine has a clock of its own: its steps take their time there from
// when they were sent, or from when the machine was done with another's.
template <class Worker, class Link, class StepResult>
class MachineLink final : public Link {
 public:
  // Pointers are borrowed. `machine` is the worker's clock, `clock` the engine's.
  MachineLink(Worker* worker, VirtualClock* machine, VirtualClock* clock)
      : worker_(worker), machine_(machine), clock_(clock) {}

  absl::StatusOr<WorkerFacts> Facts() override { return worker_->Facts(); }
  void Send(const WorkerStep& step) override {
    machine_->Advance(std::max(absl::ZeroDuration(), clock_->Now() - machine_->Now()));
    worker_->Send(step);
  }
  absl::StatusOr<StepResult> Await(absl::Duration timeout) override {
    const absl::Duration begin = machine_->Now();
    absl::StatusOr<StepResult> result = worker_->Await(timeout);
    machine_->Advance((slowdown - 1.0) * (machine_->Now() - begin));
    clock_->Advance(std::max(absl::ZeroDuration(), machine_->Now() - clock_->Now()));
    return result;
  }

  double slowdown = 1.0;  // steps take so many times longer; at least 1

 private:
  Worker* worker_;
  VirtualClock* machine_;
  VirtualClock* clock_;
};

SimWorker::Options WorkerOptions(Role role, absl::Duration step_cost) {
  SimWorker::Options options{.role = role, .facts = {}};
  options.facts = {.incarnation = 1,
                   .vocab_size = SimTokenizer().vocab_size(),
                   .context_length = 4096,
                   .positions_per_page = 16,
                   .max_step_tokens = 256,
                   .max_logits_rows = 128,
                   .max_sequences = 256};
  options.agreement = 0.9;
  options.step_cost = step_cost;
  return options;
}

SimPool LargePool() {
  SimPool pool{.num_pages = 5000, .slots_per_page = 16};
  pool.Recreate();
  return pool;
}

// Whether the workers' steps take their time at once or in turn.
enum class Machines { kOne, kTwo };

// An engine and its two workers. A verify takes 10 ms, and 1 ms for each row.
struct Pair {
  Pair(Pipelining pipelining, Machines machines, absl::Duration draft_step_cost)
      : target_worker(WorkerOptions(Role::kTarget, absl::Milliseconds(10)), &pool, &machine),
        draft_worker(WorkerOptions(Role::kDraft, draft_step_cost), &pool,
                     machines == Machines::kOne ? &machine : &second_machine),
        target(&target_worker, &machine, &clock),
        draft(&draft_worker, machines == Machines::kOne ? &machine : &second_machine, &clock),
        engine({.max_running = 8, .pipelining = pipelining}, &clock, &SimTokenizer(), &target,
               &draft, &fence, &observer) {}

  const SimClient* Submit(GenerationRequest request) {
    clients.push_back(std::make_unique<SimClient>());
    EXPECT_TRUE(engine.Submit(std::move(request), clients.back().get()).ok());
    return clients.back().get();
  }

  VirtualClock clock, machine, second_machine;
  SimPool pool = LargePool();
  SimFence fence{&pool};
  SimTarget target_worker;
  SimDraft draft_worker;
  MachineLink<SimTarget, TargetLink, VerifyStepResult> target;
  MachineLink<SimDraft, DraftLink, ProposeStepResult> draft;
  SimObserver observer;
  std::vector<std::unique_ptr<SimClient>> clients;
  Engine engine;
};

// What became of eight requests.
struct Outcome {
  absl::Duration duration;       // until the first of them ended
  double share_in_halves = 0.0;  // of the last rounds until then
  std::vector<std::vector<int32_t>> token_ids;
};

Outcome RunEight(Pipelining pipelining, Machines machines) {
  Pair pair(pipelining, machines, absl::Milliseconds(8));
  std::vector<int32_t> num_verified;  // in each step
  pair.observer.on_step = [&](const StepInfo& info) {
    if (info.role == Role::kTarget) num_verified.push_back(info.num_sequences);
  };
  std::vector<const SimClient*> clients;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    GenerationRequest request = SimRequest(10, 2500, seed);
    request.speculation.mode = SpeculationMode::kDraft;
    request.speculation.draft_length = 3;
    clients.push_back(pair.Submit(request));
  }
  const auto is_over = [](const SimClient* client) { return client->is_over(); };
  while (std::none_of(clients.begin(), clients.end(), is_over)) pair.engine.RunOnce();
  Outcome outcome{.duration = pair.clock.Now(), .token_ids = {}};
  constexpr int32_t kLast = 400;
  outcome.share_in_halves = std::count_if(num_verified.end() - kLast, num_verified.end(),
                                          [](int32_t n) { return n <= 4; }) /
                            double{kLast};
  while (!std::all_of(clients.begin(), clients.end(), is_over)) pair.engine.RunOnce();
  for (const SimClient* client : clients) outcome.token_ids.push_back(client->token_ids);
  return outcome;
}

// The same requests without halves, in halves and as `auto` chooses; they get the same tokens.
struct ThreeWays {
  explicit ThreeWays(Machines machines)
      : off(RunEight(Pipelining::kOff, machines)),
        on(RunEight(Pipelining::kOn, machines)),
        chosen(RunEight(Pipelining::kAuto, machines)) {
    EXPECT_EQ(chosen.token_ids, off.token_ids);
    EXPECT_EQ(on.token_ids, off.token_ids);
  }
  Outcome off, on, chosen;
};

TEST(HalvesTest, AutoUsesThemWhereBothWorkersRunAtOnce) {
  const ThreeWays run(Machines::kTwo);
  EXPECT_LT(run.on.duration, 0.8 * run.off.duration);
  EXPECT_LT(run.chosen.duration, 0.9 * run.off.duration);
  EXPECT_GT(run.chosen.share_in_halves, 0.9);
}

TEST(HalvesTest, AutoLeavesThemWhereTheWorkersTakeTurns) {
  const ThreeWays run(Machines::kOne);
  EXPECT_GT(run.on.duration, 1.3 * run.off.duration);
  EXPECT_LT(run.chosen.duration, 1.03 * run.off.duration);
  EXPECT_LT(run.chosen.share_in_halves, 0.1);
}

// Four requests in halves, whose steps of one worker get slower between rounds 600 and 1200.
class ChangingCosts {
 public:
  explicit ChangingCosts(absl::Duration draft_step_cost)
      : pair_(Pipelining::kOn, Machines::kTwo, draft_step_cost) {
    pair_.observer.on_step = [this](const StepInfo& info) {
      if (info.role != Role::kTarget) return;
      num_rows_ += info.num_rows;
      num_sequences_ += info.num_sequences;
    };
    for (uint64_t seed = 1; seed <= 4; ++seed) pair_.Submit(SimRequest(10, 4000, seed));
  }

  // Runs up to `end` rounds in all; the mean draft length of the last 200. `slowdown` is what
  // grows to `most`.
  double MeanDraftLength(int32_t end, double* slowdown, double most) {
    for (; num_rounds_ < end; ++num_rounds_) {
      if (end - num_rounds_ == 200) num_rows_ = num_sequences_ = 0;
      *slowdown = 1.0 + (most - 1.0) * std::clamp((num_rounds_ - 600) / 600.0, 0.0, 1.0);
      EXPECT_TRUE(pair_.engine.RunOnce());
    }
    return 1.0 * num_rows_ / num_sequences_ - 1.0;
  }

  Pair& pair() { return pair_; }

 private:
  Pair pair_;
  int32_t num_rounds_ = 0;
  int64_t num_rows_ = 0, num_sequences_ = 0;
};

// Steps that ran beside others told nothing of what they cost: drafts were as long whatever the
// workers took, and stayed so.
TEST(HalvesTest, DraftsGetLongerWhenTheTargetGetsSlower) {
  ChangingCosts run(absl::Milliseconds(6));
  double* slowdown = &run.pair().target.slowdown;
  EXPECT_LT(run.MeanDraftLength(600, slowdown, 5.0), 2.5);
  EXPECT_GT(run.MeanDraftLength(1600, slowdown, 5.0), 3.0);
}

TEST(HalvesTest, NobodyDraftsAnyMoreWhenTheDraftGetsTooSlow) {
  ChangingCosts run(absl::Milliseconds(2));
  double* slowdown = &run.pair().draft.slowdown;
  EXPECT_GT(run.MeanDraftLength(600, slowdown, 5.0), 4.0);
  EXPECT_LT(run.MeanDraftLength(1600, slowdown, 5.0), 0.5);
}

}  // namespace
}  // namespace tandem::gateway
