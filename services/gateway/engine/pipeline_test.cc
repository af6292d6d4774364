#include <algorithm>
#include <vector>

#include "gtest/gtest.h"
#include "services/gateway/engine/engine_sim.h"

namespace tandem::gateway {
namespace {

SimOptions InHalves() {
  SimOptions options;
  options.engine.pipelining = Pipelining::kOn;
  options.engine.max_running = 8;
  return options;
}

GenerationRequest DraftingRequest(uint64_t seed, int32_t max_tokens = 40) {
  GenerationRequest request = SimRequest(10, max_tokens, seed);
  request.speculation.mode = SpeculationMode::kDraft;
  request.speculation.draft_length = 3;
  return request;
}

TEST(PipelineTest, EachStepVerifiesOneHalfWhileTheOtherIsDraftedFor) {
  EngineSim sim(InHalves());
  std::vector<int32_t> verified;
  std::vector<int32_t> proposed;
  sim.observer.on_step = [&](const StepInfo& info) {
    if (info.num_prefill_tokens > 0 && info.role == Role::kTarget) return;
    (info.role == Role::kTarget ? verified : proposed).push_back(info.num_sequences);
  };
  std::vector<GenerationRequest> requests;
  std::vector<SimClient*> clients;
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    requests.push_back(DraftingRequest(seed));
    clients.push_back(sim.Submit(requests.back()));
  }
  ASSERT_TRUE(sim.RunUntilIdle());
  for (size_t i = 0; i < clients.size(); ++i) ExpectPlainAnswer(*clients[i], requests[i]);
  sim.ExpectAllFree();
  // Three and three, once all decode and until some end.
  EXPECT_LT(std::count_if(verified.begin(), verified.end(), [](int32_t n) { return n > 3; }), 3);
  EXPECT_GT(std::count(verified.begin(), verified.end(), 3), 5);
  EXPECT_GT(std::count(proposed.begin(), proposed.end(), 3), 5);
  int32_t num_accepted = 0;
  for (const SimClient* client : clients) num_accepted += client->finished->num_accepted;
  EXPECT_GT(num_accepted, 60);
}

TEST(PipelineTest, OneSequenceAloneDraftsAndVerifiesInOneRound) {
  EngineSim sim(InHalves());
  const GenerationRequest request = DraftingRequest(1);
  SimClient* client = sim.Submit(request);
  ASSERT_TRUE(sim.RunUntilIdle());
  ExpectPlainAnswer(*client, request);
  EXPECT_FALSE(client->finished->bypass_reasons.contains(std::string(bypass::kOtherHalf)));
}

TEST(PipelineTest, TheLastOneUsesWhatWasPreparedForIt) {
  EngineSim sim(InHalves());
  const GenerationRequest brief = DraftingRequest(1, 6);
  const GenerationRequest lasting = DraftingRequest(2, 60);
  SimClient* first = sim.Submit(brief);
  SimClient* second = sim.Submit(lasting);
  ASSERT_TRUE(sim.RunUntilIdle());
  ExpectPlainAnswer(*first, brief);
  ExpectPlainAnswer(*second, lasting);
  sim.ExpectAllFree();
}

TEST(PipelineTest, ADraftThatDiesBesideAVerifyCostsNothingButItsDrafts) {
  EngineSim sim(InHalves());
  std::vector<GenerationRequest> requests;
  std::vector<SimClient*> clients;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    requests.push_back(DraftingRequest(seed, 60));
    clients.push_back(sim.Submit(requests.back()));
  }
  int32_t round = 0;
  ASSERT_TRUE(sim.RunUntilIdle(20000, [&] {
    if (++round % 7 == 0 && round < 50) sim.draft.KillInNextStep(absl::Milliseconds(5));
    if (round == 24) sim.target.KillInNextStep(absl::Milliseconds(5));
    EXPECT_TRUE(sim.engine.CheckBooks().ok());
  }));
  EXPECT_GT(sim.observer.num_lost[static_cast<int>(Role::kDraft)], 2);
  for (size_t i = 0; i < clients.size(); ++i) ExpectPlainAnswer(*clients[i], requests[i]);
  sim.ExpectAllFree();
}

// The rounds in a row after which one of four requests of 300 tokens had no more tokens than
// before, at most, while nobody had to go for want of pages.
int32_t LongestWait(int32_t num_pages) {
  SimOptions options = InHalves();
  options.num_pages = num_pages;
  options.target_page_positions = 16;
  options.max_logits_rows = 200;
  options.max_step_tokens = 400;
  EngineSim sim(options);
  std::vector<SimClient*> clients;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    GenerationRequest request = DraftingRequest(seed, 300);
    request.speculation.draft_length = 12;
    clients.push_back(sim.Submit(request));
  }
  std::vector<size_t> num_tokens(clients.size());
  std::vector<int32_t> waits(clients.size());
  int32_t longest = 0;
  while (sim.engine.num_running() > 0 || sim.engine.num_waiting() > 0) {
    sim.RunRound();
    if (sim.observer.num_preemptions() > 0) break;
    for (size_t i = 0; i < clients.size(); ++i) {
      const bool is_served = clients[i]->is_over() || clients[i]->token_ids.size() > num_tokens[i];
      waits[i] = is_served ? 0 : waits[i] + 1;
      num_tokens[i] = clients[i]->token_ids.size();
      longest = std::max(longest, waits[i]);
    }
  }
  return longest;
}

// One that should have been drafted for ahead was left out of the round, and was the first to
// be drafted for ahead in the next: the oldest of them got no token for 74 rounds.
TEST(PipelineTest, OneThatGetsNoPagesForItsDraftGoesOnWithoutIt) {
  for (int32_t num_pages = 20; num_pages <= 100; num_pages += 3) {
    EXPECT_LE(LongestWait(num_pages), 1) << num_pages << " pages";
  }
}

}  // namespace
}  // namespace tandem::gateway
