// Who runs when, and who has to go.
#include <algorithm>

#include "gtest/gtest.h"
#include "services/gateway/engine/engine_sim.h"

namespace tandem::gateway {
namespace {

// What a stream waits for its next token while others' prompts are read.
TEST(ScheduleTest, PromptsStretchTheStepsOfOthersByNoMoreThanAsked) {
  SimOptions options;
  options.has_draft = false;
  options.max_step_tokens = 256;
  options.engine.prefill_stretch = 1.5;
  EngineSim sim(options);
  GenerationRequest stream = SimRequest(8, 300);
  stream.speculation.mode = SpeculationMode::kOff;
  const SimClient* client = sim.Submit(stream);
  while (client->token_ids.size() < 40) sim.RunRound();
  const absl::Duration plain = absl::Milliseconds(11);  // a step with one row
  std::vector<absl::Duration> steps;
  sim.observer.on_step = [&](const StepInfo& info) {
    if (info.num_prefill_tokens > 0 && info.num_sequences > 1) steps.push_back(info.round_trip);
  };
  const SimClient* prompt = sim.Submit(SimRequest(390, 2, 5));
  while (!prompt->is_over()) sim.RunRound();
  ASSERT_GT(steps.size(), 8u);
  for (size_t i = 4; i < steps.size(); ++i) EXPECT_LE(steps[i], 1.6 * plain) << i;
  EXPECT_LT(steps.size(), 40u);  // it is read at a good pace all the same
  ASSERT_TRUE(sim.RunUntilIdle());
}

// Many who come at once are soon all served: a stream that is there already waits a little, not
// each of them for all the others.
TEST(ScheduleTest, ABatchThatComesAtOnceFillsFast) {
  SimOptions options;
  options.has_draft = false;
  options.max_step_tokens = 256;
  options.num_pages = 1000;
  EngineSim sim(options);
  const SimClient* stream = sim.Submit(SimRequest(8, 300));
  while (stream->token_ids.size() < 40) sim.RunRound();
  const absl::Duration begin = sim.clock.Now();
  std::vector<const SimClient*> clients;
  for (int32_t i = 0; i < 15; ++i) clients.push_back(sim.Submit(SimRequest(64, 20, 5 + i)));
  const auto has_token = [](const SimClient* client) { return !client->token_ids.empty(); };
  while (!std::all_of(clients.begin(), clients.end(), has_token)) sim.RunRound();
  // Their prompts alone take 15 * 64 tokens; the stream's steps take the rest.
  const absl::Duration prompts = 15 * 64 * SimWorker::Options().prefill_token_cost;
  EXPECT_LT(sim.clock.Now() - begin, 2 * prompts);
  ASSERT_TRUE(sim.RunUntilIdle());
}

// A GPU takes hardly longer for many tokens than for a few: what the draft lacks of prompts was
// read in so many small steps that answers were half over before anything was drafted for them.
TEST(ScheduleTest, ADraftWhoseStepsCostWhateverTheyReadReadsPromptsInFew) {
  SimOptions options;
  options.num_pages = 2000;
  options.max_step_tokens = 512;
  options.draft_step_cost = absl::Microseconds(100);
  options.draft_prefill_cost = absl::Milliseconds(4);
  EngineSim sim(options);
  const auto request = [](int32_t seed) {
    GenerationRequest made = SimRequest(70, 80, static_cast<uint64_t>(seed));
    made.speculation.mode = SpeculationMode::kDraft;
    made.speculation.draft_length = 1;
    return made;
  };
  // What it costs is learned from the first ones.
  for (int32_t i = 0; i < 3; ++i) {
    sim.Submit(request(1 + i));
    ASSERT_TRUE(sim.RunUntilIdle());
  }
  const SimClient* stream = sim.Submit(SimRequest(8, 300));
  while (stream->token_ids.size() < 40) sim.RunRound();
  sim.observer.bypass_reasons.clear();
  for (int32_t i = 0; i < 7; ++i) sim.Submit(request(5 + i));
  ASSERT_TRUE(sim.RunUntilIdle());
  const int32_t num_waiting = sim.observer.bypass_reasons["catching_up"];
  EXPECT_LT(num_waiting, 7);  // steps of a sequence
}

TEST(ScheduleTest, AHigherPriorityIsServedBeforeOlderRequests) {
  SimOptions options;
  options.engine.max_running = 1;
  EngineSim sim(options);
  sim.Submit(SimRequest(10, 20));
  sim.RunRound();
  const SimClient* older = sim.Submit(SimRequest(10, 20, 2));
  GenerationRequest urgent = SimRequest(10, 20, 3);
  urgent.priority = 5;
  const SimClient* newer = sim.Submit(urgent);
  while (!newer->is_over()) sim.RunRound();
  EXPECT_FALSE(older->is_started);
  ASSERT_TRUE(sim.RunUntilIdle());
  ExpectPlainAnswer(*older, SimRequest(10, 20, 2));
}

TEST(ScheduleTest, TheLowestPriorityGivesItsPagesFirst) {
  SimOptions options;
  options.has_draft = false;
  options.num_pages = 40;  // of 8 positions
  EngineSim sim(options);
  GenerationRequest low = SimRequest(60, 120);
  low.priority = -1;
  const SimClient* first = sim.Submit(low);
  sim.RunRound();
  const SimClient* second = sim.Submit(SimRequest(60, 160, 2));
  ASSERT_TRUE(sim.RunUntilIdle());
  EXPECT_GT(first->finished->num_preemptions, 0);
  EXPECT_EQ(second->finished->num_preemptions, 0);
  ExpectPlainAnswer(*first, low);
  sim.ExpectAllFree();
}

// The time that `num_streams` answers take together, on the virtual clock.
absl::Duration TimeOf(SpeculationMode mode, int32_t num_streams, double agreement) {
  SimOptions options;
  options.agreement = agreement;
  options.num_pages = 1000;
  options.max_logits_rows = 128;
  options.max_step_tokens = 256;
  options.context_length = options.draft_context_length = 1200;
  EngineSim sim(options);
  for (int32_t i = 0; i < num_streams; ++i) {
    GenerationRequest request = SimRequest(20, 1000, 1 + i);
    request.speculation.mode = mode;
    sim.Submit(request);
  }
  EXPECT_TRUE(sim.RunUntilIdle());
  return sim.clock.Now();
}

// Each row costs a tenth of a step here, a draft token a fifth: drafts pay only when they are
// often right, and less so the more sequences share a step.
TEST(ScheduleTest, DraftingIsNeverMuchSlowerThanNotDraftingAtAnyBatchSize) {
  for (const int32_t num_streams : {1, 4, 8, 16}) {
    const absl::Duration off = TimeOf(SpeculationMode::kOff, num_streams, 0.0);
    for (const double agreement : {0.0, 0.3, 0.6, 0.95}) {
      const absl::Duration on = TimeOf(SpeculationMode::kAuto, num_streams, agreement);
      const double ratio = absl::FDivDuration(on, off);
      EXPECT_LT(ratio, 1.03) << num_streams << " streams, agreement " << agreement;
      if (agreement > 0.9 && num_streams <= 4) {
        EXPECT_LT(ratio, 0.8) << num_streams << " streams";
      }
    }
  }
}

}  // namespace
}  // namespace tandem::gateway
