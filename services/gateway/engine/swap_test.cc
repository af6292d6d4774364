// Preempted sequences whose pages wait in the target's host memory.
#include "gtest/gtest.h"
#include "services/gateway/engine/engine_sim.h"
#include "services/gateway/engine/swap_planner.h"

namespace tandem::gateway {
namespace {

class SwapPlannerTest : public ::testing::Test {
 protected:
  SwapPlannerTest() { planner_.Reset(4); }
  void Measure(absl::Duration each) {
    planner_.Free(planner_.Out({PageId(1), PageId(2)}));
    planner_.TakeCopies();
    planner_.Observe(2 * each);
  }
  SwapPlanner planner_;
};

TEST_F(SwapPlannerTest, CopiesComeInTheOrderInWhichTheyWereAskedFor) {
  const std::vector<int32_t> places = planner_.Out({PageId(7), PageId(8)});
  EXPECT_EQ(planner_.num_free(), 2);
  planner_.Back(places, {PageId(8), PageId(7)});
  EXPECT_EQ(planner_.num_free(), 4);
  const std::vector<PageCopy> copies = planner_.TakeCopies();
  ASSERT_EQ(copies.size(), 4u);
  EXPECT_TRUE(copies[0].to_host && copies[1].to_host);
  EXPECT_EQ(copies[2].page, PageId(8));
  EXPECT_EQ(copies[2].swap_page, places[0]);
  EXPECT_FALSE(planner_.has_copies());
}

TEST_F(SwapPlannerTest, WhatIsCheaperByTheLastCopiesIsDone) {
  EXPECT_FALSE(planner_.IsWorthwhile(5, 1000.0));  // no room
  EXPECT_TRUE(planner_.IsWorthwhile(4, 0.0));      // to find out
  Measure(absl::Milliseconds(10));
  EXPECT_TRUE(planner_.IsWorthwhile(2, 0.050));  // there and back: 40 ms
  EXPECT_FALSE(planner_.IsWorthwhile(2, 0.030));
}

TEST_F(SwapPlannerTest, ASlowFirstCopyIsNotTheLastWord) {
  Measure(absl::Seconds(10));
  int32_t num_tries = 0;
  while (!planner_.IsWorthwhile(2, 0.050)) ASSERT_LT(++num_tries, 100);
  Measure(absl::Milliseconds(1));
  EXPECT_TRUE(planner_.IsWorthwhile(2, 0.005));
}

SimOptions SmallPool() {
  SimOptions options;
  options.num_pages = 24;  // of 8 positions
  options.num_swap_pages = 40;
  options.engine.prefix_cache = false;
  return options;
}

// Five answers in a pool for two of them.
void RunFive(EngineSim* sim) {
  std::vector<const SimClient*> clients;
  for (uint64_t i = 1; i <= 5; ++i) clients.push_back(sim->Submit(SimRequest(40, 60, i)));
  ASSERT_TRUE(sim->RunUntilIdle(20000, [&] { ASSERT_TRUE(sim->engine.CheckBooks().ok()); }));
  for (uint64_t i = 1; i <= 5; ++i) ExpectPlainAnswer(*clients[i - 1], SimRequest(40, 60, i));
  EXPECT_GT(sim->observer.num_preemptions(), 0);
  sim->ExpectAllFree();
}

TEST(SwapTest, WhatWasPreemptedGoesOnWhereItWas) {
  EngineSim sim(SmallPool());
  int64_t num_prefilled = 0;
  sim.observer.on_step = [&](const StepInfo& info) {
    if (info.role == Role::kTarget) num_prefilled += info.num_prefill_tokens;
  };
  RunFive(&sim);
  EXPECT_GT(sim.observer.num_swapped_out, 0);
  EXPECT_EQ(sim.observer.num_swapped_in, sim.observer.num_swapped_out);
  EXPECT_LE(num_prefilled, 5 * 40);  // no token ran twice
}

TEST(SwapTest, WithoutPlacesTokensAreRunAgain) {
  SimOptions options = SmallPool();
  options.num_swap_pages = 1;
  EngineSim sim(options);
  RunFive(&sim);
  EXPECT_EQ(sim.observer.num_swapped_out, 0);
}

TEST(SwapTest, WhereCopiesTakeLongerTokensAreRunAgain) {
  EngineSim sim(SmallPool());
  sim.target.set_copy_cost(absl::Seconds(5));
  RunFive(&sim);
  EXPECT_LE(sim.observer.num_swapped_out, 12);  // the first to find out
}

TEST(SwapTest, WhatThePrefixCacheStillHasIsNotCopiedBack) {
  SimOptions options = SmallPool();
  options.engine.prefix_cache = true;
  EngineSim sim(options);
  RunFive(&sim);
  EXPECT_GT(sim.observer.num_swapped_out, 0);
  EXPECT_LT(sim.observer.num_swapped_in, sim.observer.num_swapped_out);
}

TEST(SwapTest, ATargetThatDiesTakesThemWithIt) {
  EngineSim sim(SmallPool());
  bool was_killed = false;
  sim.target.on_step = [&] {
    if (was_killed || sim.observer.num_swapped_out == 0) return;
    was_killed = true;
    sim.target.KillInNextStep(absl::Milliseconds(500));
  };
  RunFive(&sim);
  EXPECT_TRUE(was_killed);
}

// No request ends for it, and it is not tried again.
TEST(SwapTest, ATargetWithoutHostMemoryIsServedAsBefore) {
  EngineSim sim(SmallPool());
  sim.target.has_host_memory = false;
  RunFive(&sim);
  EXPECT_EQ(sim.target.num_copies, 0);
  EXPECT_EQ(sim.observer.num_lost[static_cast<int>(Role::kTarget)], 1);
}

TEST(SwapTest, ACancelledOneGivesItsPlacesBack) {
  EngineSim sim(SmallPool());
  std::vector<SequenceId> ids(3);
  for (size_t i = 0; i < ids.size(); ++i) sim.Submit(SimRequest(40, 60, i + 1), &ids[i]);
  while (sim.observer.num_swapped_out == 0) sim.RunRound();
  for (const SequenceId id : ids) sim.engine.Cancel(id, absl::CancelledError("enough"));
  ASSERT_TRUE(sim.RunUntilIdle());
  sim.ExpectAllFree();
}

}  // namespace
}  // namespace tandem::gateway
