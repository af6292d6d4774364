// What a worker has of a sequence ends with it, whatever went wrong before: a table that fills
// up with sequences that nobody asks for again opens no new ones.
#include "gtest/gtest.h"
#include "services/gateway/engine/engine_sim.h"

namespace tandem::gateway {
namespace {

constexpr int32_t kMany = 5;

GenerationRequest DraftedRequest(uint64_t seed) {
  GenerationRequest request = SimRequest(20, 40, seed);
  request.speculation = {.mode = SpeculationMode::kDraft, .draft_length = 4};
  return request;
}

TEST(EngineReleaseTest, ADraftThatRefusedARequestForgetsIt) {
  EngineSim sim;
  sim.draft.on_step = [&] { sim.draft.FailNextEntry(absl::InternalError("not now")); };
  for (int32_t i = 1; i <= kMany; ++i) {
    const SimClient* client = sim.Submit(DraftedRequest(i));
    ASSERT_TRUE(sim.RunUntilIdle());
    ExpectPlainAnswer(*client, DraftedRequest(i));
  }
  sim.draft.on_step = nullptr;
  sim.draft.FailNextEntry(absl::OkStatus());
  sim.ExpectAllFree();
}

TEST(EngineReleaseTest, ATargetForgetsWhatWasToBeReplayed) {
  EngineSim sim;
  for (int32_t i = 1; i <= kMany; ++i) {
    SequenceId id{};
    const SimClient* client = sim.Submit(SimRequest(20, 50, i), &id);
    while (client->token_ids.size() < 5) sim.RunRound();
    sim.target.FailNextEntry(absl::AbortedError("page was handed on"));
    sim.RunRound();
    sim.engine.Cancel(id, absl::CancelledError("client went away"));
  }
  sim.ExpectAllFree();
}

// A refused step does nothing of what it says, and the session goes on.
TEST(EngineReleaseTest, ReleasesOfARefusedStepAreToldAgain) {
  EngineSim sim;
  for (int32_t i = 1; i <= kMany; ++i) {
    SequenceId id{};
    const SimClient* first = sim.Submit(DraftedRequest(2 * i), &id);
    const SimClient* second = sim.Submit(DraftedRequest(2 * i + 1));
    while (first->token_ids.size() < 5) sim.RunRound();
    sim.engine.Cancel(id, absl::CancelledError("client went away"));
    sim.target.RefuseNextStep(absl::InternalError("not now"));
    sim.draft.RefuseNextStep(absl::InternalError("not now"));
    ASSERT_TRUE(sim.RunUntilIdle());
    ExpectPlainAnswer(*second, DraftedRequest(2 * i + 1));
  }
  sim.ExpectAllFree();
}

// With nothing else to run, the step that is refused holds releases alone. It is not sent
// without a pause.
TEST(EngineReleaseTest, ATargetThatRefusesReleasesIsAskedRarely) {
  EngineSim sim;
  const SimClient* client = sim.Submit(SimRequest(20, 10));
  while (!client->is_over()) sim.RunRound();
  const int32_t num_steps = sim.target.num_steps;
  sim.target.on_step = [&] { sim.target.RefuseNextStep(absl::InternalError("not now")); };
  const absl::Duration begin = sim.clock.Now();
  while (sim.clock.Now() < begin + absl::Seconds(10)) sim.RunRound();
  EXPECT_LE(sim.target.num_steps - num_steps, 12);
  sim.target.on_step = nullptr;
  sim.target.RefuseNextStep(absl::OkStatus());
  sim.ExpectAllFree();
}

// Nothing of a refused step is open, so there is nothing to forget: what waits to be told stays
// small however long a worker refuses.
TEST(EngineReleaseTest, WhatWasNeverOpenedIsNotReleased) {
  EngineSim sim;
  sim.target.on_step = [&] { sim.target.RefuseNextStep(absl::InternalError("not now")); };
  sim.draft.on_step = [&] { sim.draft.RefuseNextStep(absl::InternalError("not now")); };
  for (int32_t i = 1; i <= 40; ++i) {
    sim.Submit(DraftedRequest(i));
    ASSERT_TRUE(sim.RunUntilIdle());
    ASSERT_TRUE(sim.engine.CheckBooks().ok()) << sim.engine.CheckBooks();
  }
  sim.target.on_step = sim.draft.on_step = nullptr;
  sim.target.RefuseNextStep(absl::OkStatus());
  sim.draft.RefuseNextStep(absl::OkStatus());
  sim.ExpectAllFree();
}

TEST(EngineReleaseTest, OnlyWhoRunsIsOpen) {
  SimOptions options;
  options.engine.max_running = 4;
  options.max_sequences = 4;
  options.num_pages = 24;  // some have to go and come back
  EngineSim sim(options);
  std::vector<const SimClient*> clients;
  for (int32_t i = 1; i <= 40; ++i) clients.push_back(sim.Submit(DraftedRequest(i)));
  ASSERT_TRUE(sim.RunUntilIdle(20000, [&] {
    EXPECT_LE(sim.target.num_sequences(), options.max_sequences);
    EXPECT_LE(sim.draft.num_sequences(), options.max_sequences);
  }));
  EXPECT_GT(sim.observer.num_preemptions(), 5);
  for (int32_t i = 1; i <= 40; ++i) ExpectPlainAnswer(*clients[i - 1], DraftedRequest(i));
  EXPECT_EQ(sim.observer.bypass_reasons.count("draft_failed"), 0);
  sim.ExpectAllFree();
}

// A draft with fewer places than run: who finds none goes on without it.
TEST(EngineReleaseTest, AFullDraftCostsOnlyDrafts) {
  EngineSim sim;
  sim.draft.set_max_sequences(2);
  std::vector<const SimClient*> clients;
  for (int32_t i = 1; i <= 4; ++i) clients.push_back(sim.Submit(DraftedRequest(i)));
  ASSERT_TRUE(sim.RunUntilIdle());
  for (int32_t i = 1; i <= 4; ++i) ExpectPlainAnswer(*clients[i - 1], DraftedRequest(i));
  EXPECT_GT(sim.observer.sequence_steps[static_cast<int>(DraftSource::kDraft)], 10);
  EXPECT_EQ(sim.observer.num_lost[static_cast<int>(Role::kDraft)], 0);
  sim.ExpectAllFree();
}

}  // namespace
}  // namespace tandem::gateway
