// What the engine promises, one thing at a time, on simulated workers.
#include "services/gateway/engine/engine.h"

#include <algorithm>
#include <numeric>

#include "common/tokenizer/tokenizer.h"
#include "gtest/gtest.h"
#include "services/gateway/engine/engine_sim.h"

namespace tandem::gateway {
namespace {

TEST(EngineTest, SpeculationMakesFewerStepsOfTheSameAnswer) {
  SimOptions options;
  options.agreement = 0.9;
  for (const SpeculationMode mode : {SpeculationMode::kOff, SpeculationMode::kAuto,
                                     SpeculationMode::kDraft, SpeculationMode::kLookup}) {
    EngineSim sim(options);
    GenerationRequest request = SimRequest(20, 100);
    request.speculation.mode = mode;
    const SimClient* client = sim.Submit(request);
    ASSERT_TRUE(sim.RunUntilIdle());
    ExpectPlainAnswer(*client, request);
    const FinishedInfo& info = *client->finished;
    EXPECT_EQ(info.reason, FinishReason::kMaxTokens);
    EXPECT_EQ(info.prompt_tokens, 20);
    EXPECT_EQ(info.output_tokens, 100);
    const int32_t num_bypassed =
        std::accumulate(info.bypass_reasons.begin(), info.bypass_reasons.end(), 0,
                        [](int32_t sum, const auto& entry) { return sum + entry.second; });
    if (mode == SpeculationMode::kOff) {
      EXPECT_EQ(info.num_steps, 99);
      EXPECT_EQ(info.bypass_reasons.at("off"), 99);
    } else if (mode != SpeculationMode::kLookup) {
      EXPECT_LT(info.num_steps, 70);
      EXPECT_GT(info.num_accepted, 30);
      EXPECT_LT(num_bypassed, 30);
    }
    sim.ExpectAllFree();
  }
}

double SecondsOf(const SimOptions& options, SpeculationMode mode, int32_t num_requests) {
  EngineSim sim(options);
  for (int32_t i = 0; i < num_requests; ++i) {
    GenerationRequest request = SimRequest(10, 300, i + 1);
    request.speculation.mode = mode;
    sim.Submit(request);
  }
  EXPECT_TRUE(sim.RunUntilIdle());
  return absl::ToDoubleSeconds(sim.clock.Now());
}

TEST(EngineTest, AUselessDraftCostsAtMostThreePercentAndAGoodOneIsFaster) {
  for (const int32_t num_requests : {1, 4}) {
    SimOptions options;
    options.agreement = 0.0;
    const double plain = SecondsOf(options, SpeculationMode::kOff, num_requests);
    EXPECT_LT(SecondsOf(options, SpeculationMode::kAuto, num_requests), 1.03 * plain);
    options.agreement = 0.95;
    EXPECT_LT(SecondsOf(options, SpeculationMode::kAuto, num_requests), 0.7 * plain);
  }
}

TEST(EngineTest, EstimatesWhatPlainDecodingWouldHaveTaken) {
  EngineSim sim;
  GenerationRequest request = SimRequest(10, 200);
  const SimClient* client = sim.Submit(request);
  ASSERT_TRUE(sim.RunUntilIdle());
  const FinishedInfo& info = *client->finished;
  EXPECT_NEAR(absl::ToDoubleSeconds(info.estimated_plain_decode), 199 * 0.011, 0.3);
  EXPECT_LT(info.decode, info.estimated_plain_decode);
  EXPECT_EQ(info.time_to_first_token, info.queue + info.prefill);
}

TEST(EngineTest, CancellingAtAnyTokenFreesEverythingAtOnce) {
  for (int32_t at = 0; at <= 12; ++at) {
    EngineSim sim;
    SequenceId id{};
    SimClient* client = sim.Submit(SimRequest(20, 30), &id);
    const SimClient* other = sim.Submit(SimRequest(9, 20, 2));
    while (static_cast<int32_t>(client->token_ids.size()) < at) sim.RunRound();
    sim.engine.Cancel(id, absl::CancelledError("client went away"));
    EXPECT_TRUE(absl::IsCancelled(client->error));
    sim.RunRound();
    EXPECT_EQ(sim.engine.num_running(), 1);
    EXPECT_LE(sim.target.num_sequences(), 1);
    EXPECT_LE(sim.observer.gauges.pages_target, (9 + 20 + 16) / 8);
    ASSERT_TRUE(sim.RunUntilIdle());
    ExpectPlainAnswer(*other, SimRequest(9, 20, 2));
    sim.ExpectAllFree();
  }
}

TEST(EngineTest, ASinkMayCancelWhileItIsCalled) {
  EngineSim sim;
  SequenceId id{};
  SimClient* client = sim.Submit(SimRequest(20, 30), &id);
  client->on_delta = [&] { sim.engine.Cancel(id, absl::CancelledError("enough")); };
  ASSERT_TRUE(sim.RunUntilIdle());
  EXPECT_TRUE(absl::IsCancelled(client->error));
  EXPECT_EQ(client->num_deltas, 1);
  sim.ExpectAllFree();
}

TEST(EngineTest, AnExpiredDeadlineDoesNoWork) {
  EngineSim sim;
  GenerationRequest request = SimRequest(20, 30);
  request.deadline = sim.clock.Now();
  const SimClient* client = sim.Submit(request);
  sim.RunRound();
  EXPECT_TRUE(absl::IsDeadlineExceeded(client->error));
  EXPECT_EQ(sim.target.num_steps, 0);
  request.deadline = sim.clock.Now() + absl::Milliseconds(100);
  client = sim.Submit(request);
  ASSERT_TRUE(sim.RunUntilIdle());
  EXPECT_TRUE(absl::IsDeadlineExceeded(client->error));
  EXPECT_GT(client->token_ids.size(), 2u);
  EXPECT_LT(client->token_ids.size(), 30u);
  sim.ExpectAllFree();
}

TEST(EngineTest, AClientThatDoesNotReadIsLeftOutAndThenEnded) {
  SimOptions options;
  options.engine.congestion_timeout = absl::Seconds(2);
  EngineSim sim(options);
  SimClient* stalled = sim.Submit(SimRequest(10, 300));
  const SimClient* reading = sim.Submit(SimRequest(10, 300, 2));
  while (stalled->token_ids.size() < 5) sim.RunRound();
  stalled->is_congested = true;
  sim.RunRound();
  const int32_t num_deltas = stalled->num_deltas;
  ASSERT_TRUE(sim.RunUntilIdle());
  EXPECT_EQ(stalled->num_deltas, num_deltas);
  EXPECT_TRUE(absl::IsResourceExhausted(stalled->error)) << stalled->error;
  ExpectPlainAnswer(*reading, SimRequest(10, 300, 2));
  sim.ExpectAllFree();
}

TEST(EngineTest, AClientThatReadsAgainGoesOn) {
  EngineSim sim;
  SimClient* client = sim.Submit(SimRequest(10, 60));
  while (client->token_ids.size() < 5) sim.RunRound();
  client->is_congested = true;
  for (int32_t i = 0; i < 20; ++i) sim.RunRound();
  client->is_congested = false;
  ASSERT_TRUE(sim.RunUntilIdle());
  ExpectPlainAnswer(*client, SimRequest(10, 60));
}

TEST(EngineTest, RefusesAtOnceWhatCannotBe) {
  SimOptions options;
  options.engine.max_waiting = 2;
  options.engine.max_context = 100;
  options.num_pages = 10;
  options.target_page_positions = 8;
  EngineSim sim(options);
  EXPECT_EQ(sim.Submit(SimRequest(0, 5))->error.code(), absl::StatusCode::kInvalidArgument);
  const absl::Status too_long = sim.Submit(SimRequest(81, 5))->error;
  EXPECT_EQ(too_long.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(too_long.message().find("81 tokens, the page pool holds 80"), std::string::npos);
  options.num_pages = 100;
  EngineSim large(options);
  EXPECT_NE(large.Submit(SimRequest(100, 5))->error.message().find("the context 100"),
            std::string::npos);
  sim.Submit(SimRequest(5, 5));
  sim.Submit(SimRequest(5, 5));
  EXPECT_TRUE(absl::IsResourceExhausted(sim.Submit(SimRequest(5, 5))->error));
  ASSERT_TRUE(sim.RunUntilIdle());
}

TEST(EngineTest, TheContextsEndEndsTheAnswer) {
  SimOptions options;
  options.engine.max_context = 30;
  EngineSim sim(options);
  const SimClient* client = sim.Submit(SimRequest(20, 0));
  ASSERT_TRUE(sim.RunUntilIdle());
  EXPECT_EQ(client->finished->reason, FinishReason::kContextFull);
  EXPECT_EQ(client->token_ids.size(), 10u);
}

TEST(EngineTest, AFullPoolPreemptsTheYoungestAndChangesNoAnswer) {
  SimOptions options;
  options.num_pages = 24;  // 192 positions
  EngineSim sim(options);
  std::vector<const SimClient*> clients;
  for (int32_t i = 0; i < 5; ++i) clients.push_back(sim.Submit(SimRequest(20, 80, i + 1)));
  ASSERT_TRUE(sim.RunUntilIdle());
  for (int32_t i = 0; i < 5; ++i) ExpectPlainAnswer(*clients[i], SimRequest(20, 80, i + 1));
  EXPECT_EQ(clients[0]->finished->num_preemptions, 0);
  EXPECT_GT(sim.observer.num_preemptions(), 0);
  EXPECT_GT(sim.observer.pressure[static_cast<int>(PressureRung::kDropDraftPages)], 0);
  sim.ExpectAllFree();
}

TEST(EngineTest, ALongPromptDoesNotStarveShortOnes) {
  SimOptions options;
  options.engine.prefill_chunk_tokens = 32;
  options.max_step_tokens = 40;
  EngineSim sim(options);
  const SimClient* long_prompt = sim.Submit(SimRequest(380, 10));
  const SimClient* short_prompt = sim.Submit(SimRequest(10, 10, 2));
  while (!short_prompt->is_over()) sim.RunRound();
  EXPECT_TRUE(long_prompt->token_ids.empty());
  ASSERT_TRUE(sim.RunUntilIdle());
  ExpectPlainAnswer(*long_prompt, SimRequest(380, 10));
}

TEST(EngineTest, RejectionWithoutAFreeSlotRunsWithoutTheDraft) {
  SimOptions options;
  options.num_draft_probs_slots = 1;
  EngineSim sim(options);
  std::vector<const SimClient*> clients;
  for (int32_t i = 0; i < 2; ++i) {
    GenerationRequest request = SimRequest(20, 60, i + 1);
    request.sampling.rule = AcceptanceRule::kRejection;
    request.speculation.mode = SpeculationMode::kDraft;
    clients.push_back(sim.Submit(request));
  }
  ASSERT_TRUE(sim.RunUntilIdle());
  EXPECT_GT(clients[0]->finished->num_accepted, 10);
  EXPECT_GT(clients[1]->finished->bypass_reasons.at("no_slot"), 5);
  for (const SimClient* client : clients) EXPECT_EQ(client->token_ids.size(), 60u);
  sim.ExpectAllFree();
}

// As renamed special tokens are: the draft ends before them, the answer may well hold them.
TEST(EngineTest, WhatTheDraftMeansOtherwiseIsNeverDrafted) {
  for (const AcceptanceRule rule : {AcceptanceRule::kCoupled, AcceptanceRule::kRejection}) {
    for (const int32_t first_banned : {0, 40}) {
      if (rule == AcceptanceRule::kRejection && first_banned == 0) continue;  // nothing to draw
      SimOptions options;
      options.engine.never_drafted.resize(256);
      std::iota(options.engine.never_drafted.begin(), options.engine.never_drafted.end(),
                first_banned);
      EngineSim sim(options);
      GenerationRequest request = SimRequest(20, 60);
      request.sampling.rule = rule;
      request.speculation.mode = SpeculationMode::kDraft;
      const SimClient* client = sim.Submit(request);
      ASSERT_TRUE(sim.RunUntilIdle());
      EXPECT_EQ(client->token_ids.size(), 60u);
      if (rule == AcceptanceRule::kCoupled) ExpectPlainAnswer(*client, request);
      const std::vector<int32_t>& banned = options.engine.never_drafted;
      for (const int32_t id : sim.target.drafts_seen) {
        EXPECT_FALSE(std::binary_search(banned.begin(), banned.end(), id)) << id;
      }
      sim.ExpectAllFree();
    }
  }
}

// Padding, say. Under REJECTION a drawn token that is not judged would leave a bias.
TEST(EngineTest, IdsThatOnlyTheDraftHasAreNotDrawnUnderRejection) {
  for (const int32_t used_vocab_size : {0, 50}) {
    SimOptions options;
    options.num_draft_only_ids = 500;
    EngineSim sim(options);
    GenerationRequest request = SimRequest(20, 60);
    request.sampling.rule = AcceptanceRule::kRejection;
    request.sampling.used_vocab_size = used_vocab_size;
    request.speculation.mode = SpeculationMode::kDraft;
    const SimClient* client = sim.Submit(request);
    ASSERT_TRUE(sim.RunUntilIdle());
    EXPECT_EQ(client->token_ids.size(), 60u);
    ASSERT_FALSE(sim.draft.ids_drafted.empty());
    const int32_t num_known = SimTokenizer().vocab_size();
    EXPECT_LT(*sim.draft.ids_drafted.rbegin(), used_vocab_size > 0 ? used_vocab_size : num_known);
    sim.ExpectAllFree();
  }
}

TEST(EngineTest, WorksWithoutADraftAtAll) {
  SimOptions options;
  options.has_draft = false;
  for (const SpeculationMode mode : {SpeculationMode::kAuto, SpeculationMode::kDraft}) {
    EngineSim sim(options);
    GenerationRequest request = SimRequest(20, 60);
    request.speculation.mode = mode;
    const SimClient* client = sim.Submit(request);
    ASSERT_TRUE(sim.RunUntilIdle());
    ExpectPlainAnswer(*client, request);
    sim.ExpectAllFree();
  }
}

TEST(EngineTest, IdleRoundsDoNothing) {
  EngineSim sim;
  EXPECT_FALSE(sim.engine.RunOnce());
  EXPECT_EQ(sim.target.num_steps, 0);
  EXPECT_EQ(sim.observer.gauges.pages_free, sim.observer.gauges.pages_total);
  sim.engine.Cancel(SequenceId(77), absl::CancelledError("unknown"));
}

}  // namespace
}  // namespace tandem::gateway
