// Workers die, hang, refuse and lie: who notices, and who does not.
#include "gtest/gtest.h"
#include "services/gateway/engine/engine_sim.h"

namespace tandem::gateway {
namespace {

TEST(EngineFaultTest, LosingTheDraftFailsNobodyAndItIsUsedAgain) {
  EngineSim sim;
  const SimClient* client = sim.Submit(SimRequest(20, 250));
  while (client->token_ids.size() < 50) sim.RunRound();
  sim.draft.Kill(absl::Milliseconds(300));
  sim.RunRound();
  EXPECT_EQ(sim.observer.gauges.pages_draft, 0);
  EXPECT_FALSE(sim.observer.gauges.draft_up);
  ASSERT_TRUE(sim.RunUntilIdle());
  ExpectPlainAnswer(*client, SimRequest(20, 250));
  EXPECT_GT(client->finished->bypass_reasons.at("draft_down"), 5);
  EXPECT_LT(client->finished->bypass_reasons.at("draft_down"), 60);
  EXPECT_GT(sim.draft.num_steps, 40);
  sim.ExpectAllFree();
}

TEST(EngineFaultTest, ADraftThatRefusesEveryStepIsAskedRarely) {
  EngineSim sim;
  sim.draft.on_step = [&] { sim.draft.RefuseNextStep(absl::AbortedError("another epoch")); };
  const SimClient* client = sim.Submit(SimRequest(20, 300));
  ASSERT_TRUE(sim.RunUntilIdle());
  ExpectPlainAnswer(*client, SimRequest(20, 300));
  EXPECT_LE(sim.draft.num_steps, 8);
}

TEST(EngineFaultTest, AHangingWorkerCostsItsTimeoutAndNoToken) {
  SimOptions options;
  options.engine.step_timeout = absl::Seconds(30);
  EngineSim sim(options);
  const SimClient* client = sim.Submit(SimRequest(20, 250));
  while (client->token_ids.size() < 50) sim.RunRound();
  sim.draft.HangInNextStep(absl::Milliseconds(300));
  while (client->token_ids.size() < 100) sim.RunRound();
  EXPECT_LT(sim.clock.Now(), absl::Seconds(15));  // not as long as the target may take
  sim.target.HangInNextStep(absl::Milliseconds(300));
  ASSERT_TRUE(sim.RunUntilIdle());
  EXPECT_GT(sim.clock.Now(), absl::Seconds(30));
  ExpectPlainAnswer(*client, SimRequest(20, 250));
  sim.ExpectAllFree();
}

// The part of a prompt before the deadly token works each time: that is no progress.
TEST(EngineFaultTest, ALongPromptThatKillsTheTargetIsEndedToo) {
  EngineSim sim;
  sim.target.deadly_token = 251;
  GenerationRequest deadly = SimRequest(300, 50);
  deadly.prompt[250] = 251;
  const SimClient* client = sim.Submit(deadly);
  ASSERT_TRUE(sim.RunUntilIdle());
  EXPECT_TRUE(absl::IsUnavailable(client->error)) << client->error;
}

TEST(EngineFaultTest, LosingTheTargetDelaysAndNothingElse) {
  EngineSim sim;
  const SimClient* first = sim.Submit(SimRequest(40, 100));
  const SimClient* second = sim.Submit(SimRequest(7, 100, 2));
  int32_t round = 0;
  ASSERT_TRUE(sim.RunUntilIdle(20000, [&] {
    if (++round == 3) sim.target.Kill(absl::Seconds(1));
    if (round == 60) sim.target.KillInNextStep(absl::Seconds(2));
    if (round == 168) {
      sim.target.Kill(absl::Seconds(1));
      sim.draft.Kill(absl::Seconds(1));
    }
  }));
  ExpectPlainAnswer(*first, SimRequest(40, 100));
  ExpectPlainAnswer(*second, SimRequest(7, 100, 2));
  EXPECT_EQ(sim.observer.num_lost[static_cast<int>(Role::kTarget)], 3);
  sim.ExpectAllFree();
}

TEST(EngineFaultTest, WaitsForTheTargetOnlySoLong) {
  SimOptions options;
  options.engine.target_wait = absl::Seconds(5);
  EngineSim sim(options);
  const SimClient* client = sim.Submit(SimRequest(20, 100));
  while (client->token_ids.size() < 5) sim.RunRound();
  sim.target.Kill(absl::Seconds(60));
  const absl::Duration killed = sim.clock.Now();
  while (sim.clock.Now() < killed + absl::Seconds(4)) sim.RunRound();
  EXPECT_FALSE(client->is_over());
  const SimClient* late = sim.Submit(SimRequest(20, 100));
  while (!client->is_over()) sim.RunRound();
  EXPECT_TRUE(absl::IsUnavailable(client->error));
  EXPECT_LT(sim.clock.Now(), killed + absl::Seconds(6));
  EXPECT_FALSE(late->is_over());
  while (!late->is_over()) sim.RunRound();
  EXPECT_GE(sim.clock.Now(), killed + absl::Seconds(9));
}

TEST(EngineFaultTest, ARequestThatKillsTheTargetIsEndedAndTheOthersAreNot) {
  EngineSim sim;
  sim.target.deadly_token = 251;
  GenerationRequest deadly = SimRequest(20, 50);
  deadly.prompt[10] = 251;
  GenerationRequest harmless = SimRequest(20, 50, 2);
  harmless.sampling.logit_bias = {{251, -100.0f}};
  const SimClient* first = sim.Submit(harmless);
  const SimClient* second = sim.Submit(deadly);
  const SimClient* third = sim.Submit(harmless);
  ASSERT_TRUE(sim.RunUntilIdle());
  EXPECT_TRUE(absl::IsUnavailable(second->error)) << second->error;
  ExpectPlainAnswer(*first, harmless);
  ExpectPlainAnswer(*third, harmless);
  EXPECT_LE(sim.observer.num_lost[static_cast<int>(Role::kTarget)], 4);
  sim.ExpectAllFree();
}

TEST(EngineFaultTest, LogitsThatAreNotFiniteEndOneRequest) {
  EngineSim sim;
  sim.target.poison_token = 251;
  GenerationRequest poisoned = SimRequest(20, 50);
  poisoned.prompt.back() = 251;
  GenerationRequest harmless = SimRequest(20, 50, 2);
  harmless.sampling.logit_bias = {{251, -100.0f}};
  const SimClient* first = sim.Submit(poisoned);
  const SimClient* second = sim.Submit(harmless);
  ASSERT_TRUE(sim.RunUntilIdle());
  EXPECT_EQ(first->error.code(), absl::StatusCode::kInternal);
  ExpectPlainAnswer(*second, harmless);
  sim.ExpectAllFree();
}

TEST(EngineFaultTest, AStalePageIsReplayedOnceThenAnError) {
  EngineSim sim;
  SimClient* client = sim.Submit(SimRequest(20, 50));
  while (client->token_ids.size() < 5) sim.RunRound();
  sim.target.FailNextEntry(absl::AbortedError("page was handed on"));
  ASSERT_TRUE(sim.RunUntilIdle());
  ExpectPlainAnswer(*client, SimRequest(20, 50));

  client = sim.Submit(SimRequest(20, 50));
  sim.target.on_step = [&] { sim.target.FailNextEntry(absl::AbortedError("stale again")); };
  ASSERT_TRUE(sim.RunUntilIdle());
  EXPECT_TRUE(absl::IsAborted(client->error));
  sim.target.on_step = nullptr;
  sim.ExpectAllFree();
}

}  // namespace
}  // namespace tandem::gateway
