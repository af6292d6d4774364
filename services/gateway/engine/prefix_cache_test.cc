// The prefix cache: what is found again, what it spares, and that nothing else changes.
#include "gtest/gtest.h"
#include "services/gateway/engine/engine_sim.h"

namespace tandem::gateway {
namespace {

// The conversation so far and a new question.
GenerationRequest NextTurn(const GenerationRequest& turn, const SimClient& client,
                           int32_t num_new_tokens) {
  GenerationRequest next = turn;
  next.prompt.insert(next.prompt.end(), client.token_ids.begin(), client.token_ids.end());
  for (int32_t i = 0; i < num_new_tokens; ++i) next.prompt.push_back(i % 250);
  return next;
}

TEST(PrefixCacheTest, ASecondTurnRunsOnlyWhatIsNew) {
  EngineSim sim;
  const GenerationRequest first = SimRequest(160, 60);
  const SimClient* client = sim.Submit(first);
  ASSERT_TRUE(sim.RunUntilIdle());
  const GenerationRequest second = NextTurn(first, *client, 12);
  int32_t num_prefilled = 0;
  sim.observer.on_step = [&](const StepInfo& info) {
    if (info.role == Role::kTarget) num_prefilled += info.num_prefill_tokens;
  };
  const SimClient* again = sim.Submit(second);
  ASSERT_TRUE(sim.RunUntilIdle());
  ExpectPlainAnswer(*again, second);
  // 219 tokens of the first turn have run, 27 whole pages of 8.
  EXPECT_EQ(again->finished->cached_tokens, 216);
  EXPECT_EQ(num_prefilled, 160 + 60 + 12 - 216);
  EXPECT_EQ(client->finished->cached_tokens, 0);
  EXPECT_GT(sim.observer.num_cached_tokens[static_cast<int>(Role::kDraft)], 100);
  sim.ExpectAllFree();
}

TEST(PrefixCacheTest, TheSamePromptLeavesOneTokenToRun) {
  EngineSim sim;
  const GenerationRequest request = SimRequest(64, 20);
  sim.Submit(request);
  ASSERT_TRUE(sim.RunUntilIdle());
  const SimClient* again = sim.Submit(request);
  ASSERT_TRUE(sim.RunUntilIdle());
  ExpectPlainAnswer(*again, request);
  EXPECT_EQ(again->finished->cached_tokens, 56);
}

TEST(PrefixCacheTest, RunningRequestsShareThePagesOfTheirPrompt) {
  SimOptions options;
  options.has_draft = false;
  options.num_pages = 60;  // two alone would not fit: 30 pages for a prompt, 10 for an answer
  EngineSim sim(options);
  GenerationRequest request = SimRequest(240, 80);
  sim.Submit(request);
  for (int i = 0; i < 8; ++i) sim.RunRound();
  request.sampling.seed = 2;
  const SimClient* second = sim.Submit(request);
  sim.RunRound();
  EXPECT_EQ(sim.engine.num_running(), 2);
  EXPECT_GE(sim.observer.gauges.pages_pinned, 29);
  ASSERT_TRUE(sim.RunUntilIdle());
  EXPECT_EQ(sim.observer.num_preemptions(), 0);
  ExpectPlainAnswer(*second, request);
  sim.ExpectAllFree();
}

TEST(PrefixCacheTest, PromptsThatRunTogetherEndUpWithOneSetOfPages) {
  SimOptions options;
  options.has_draft = false;
  options.engine.prefill_chunk_tokens = 16;
  EngineSim sim(options);
  GenerationRequest request = SimRequest(100, 40);
  const SimClient* first = sim.Submit(request);
  const SimClient* second = sim.Submit(request);
  while (second->token_ids.empty()) sim.RunRound();
  EXPECT_LE(sim.observer.gauges.pages_target, 13 + 2);
  ASSERT_TRUE(sim.RunUntilIdle());
  ExpectPlainAnswer(*first, request);
  ExpectPlainAnswer(*second, request);
  sim.ExpectAllFree();
}

TEST(PrefixCacheTest, IdlePagesGiveWayToRequests) {
  SimOptions options;
  options.num_pages = 40;
  EngineSim sim(options);
  for (uint64_t seed = 1; seed < 12; ++seed) {
    const GenerationRequest request = SimRequest(150, 30, seed);
    const SimClient* client = sim.Submit(request);
    ASSERT_TRUE(sim.RunUntilIdle());
    ExpectPlainAnswer(*client, request);
    EXPECT_EQ(client->finished->num_preemptions, 0);
  }
  EXPECT_EQ(sim.observer.num_preemptions(), 0);
  sim.ExpectAllFree();
}

// They stay in the cache, and were found there in the next round whatever else was free: they
// went to and fro, ten times a request.
TEST(PrefixCacheTest, WhatTheDraftGaveUpItDoesNotTakeBackWhilePagesAreFew) {
  for (const int32_t num_pages : {40, 60, 90, 120}) {
    SimOptions options;
    options.num_pages = num_pages;
    options.draft_page_positions = 8;
    options.max_logits_rows = 200;
    options.max_step_tokens = 400;
    EngineSim sim(options);
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      GenerationRequest request = SimRequest(40, 200, seed);
      request.speculation.mode = SpeculationMode::kDraft;
      request.speculation.draft_length = 4;
      sim.Submit(request);
    }
    ASSERT_TRUE(sim.RunUntilIdle());
    EXPECT_LE(sim.observer.pressure[static_cast<int>(PressureRung::kDropDraftPages)], 4)
        << num_pages << " pages";
    sim.ExpectAllFree();
  }
}

TEST(PrefixCacheTest, NothingIsFoundInTheMemoryOfAWorkerThatDied) {
  EngineSim sim;
  const GenerationRequest request = SimRequest(100, 20);
  sim.Submit(request);
  ASSERT_TRUE(sim.RunUntilIdle());
  sim.target.Kill(absl::Milliseconds(100));
  sim.RunRound();
  const SimClient* again = sim.Submit(request);
  ASSERT_TRUE(sim.RunUntilIdle());
  ExpectPlainAnswer(*again, request);
  EXPECT_EQ(again->finished->cached_tokens, 0);
  sim.ExpectAllFree();
}

TEST(PrefixCacheTest, CanBeTurnedOff) {
  SimOptions options;
  options.engine.prefix_cache = false;
  EngineSim sim(options);
  const GenerationRequest request = SimRequest(100, 20);
  sim.Submit(request);
  ASSERT_TRUE(sim.RunUntilIdle());
  const SimClient* again = sim.Submit(request);
  ASSERT_TRUE(sim.RunUntilIdle());
  EXPECT_EQ(again->finished->cached_tokens, 0);
  EXPECT_EQ(sim.observer.gauges.pages_free, sim.observer.gauges.pages_total);
}

}  // namespace
}  // namespace tandem::gateway
