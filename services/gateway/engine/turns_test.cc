// Nobody is kept from its turn for ever: not by others' priorities, pages or slow readers.
#include <algorithm>

#include "gtest/gtest.h"
#include "services/gateway/engine/engine_sim.h"

namespace tandem::gateway {
namespace {

GenerationRequest PlainRequest(int32_t num_prompt_tokens, int32_t max_tokens, uint64_t seed) {
  GenerationRequest request = SimRequest(num_prompt_tokens, max_tokens, seed);
  request.speculation.mode = SpeculationMode::kOff;
  return request;
}

// Requests of a higher priority come without end and fill the pool: the low one has to go again and
// again, until what it waited outranks them.
TEST(TurnsTest, ALowPriorityEndsWhileHigherOnesComeWithoutEnd) {
  SimOptions options;
  options.has_draft = false;
  options.num_pages = 40;
  options.engine.max_running = 8;
  EngineSim sim(options);
  uint64_t seed = 1;
  const auto keep_busy = [&] {
    const auto num_live = std::count_if(sim.clients.begin(), sim.clients.end(),
                                        [](const auto& client) { return !client->is_over(); });
    for (auto i = num_live; i < 5; ++i) sim.Submit(PlainRequest(20, 130, ++seed));
    sim.RunRound();
  };
  for (int32_t i = 0; i < 50; ++i) keep_busy();
  GenerationRequest low = PlainRequest(200, 60, 1);
  low.priority = -1;
  const SimClient* client = sim.Submit(low);
  const absl::Duration start = sim.clock.Now();
  while (!client->is_over() && sim.clock.Now() - start < absl::Seconds(120)) keep_busy();
  ASSERT_TRUE(client->finished.has_value()) << client->token_ids.size() << " tokens";
  EXPECT_GT(client->finished->num_preemptions, 0);
  ExpectPlainAnswer(*client, low);
}

// Clients that read a little every 29 s are never ended, and hold nobody up.
TEST(TurnsTest, SlowReadersHoldNoPlaces) {
  SimOptions options;
  options.num_pages = 2000;
  options.engine.max_running = 4;
  EngineSim sim(options);
  std::vector<SimClient*> slow;
  for (int32_t i = 0; i < 4; ++i) slow.push_back(sim.Submit(SimRequest(10, 300, 1 + i)));
  const auto has_little = [](const SimClient* client) { return client->token_ids.size() < 3; };
  while (std::any_of(slow.begin(), slow.end(), has_little)) sim.RunRound();
  for (SimClient* client : slow) client->is_congested = true;
  sim.RunRound();
  const GenerationRequest request = SimRequest(10, 20, 50);
  const SimClient* good = sim.Submit(request);
  for (int32_t i = 0; i < 40; ++i) sim.RunRound();
  ExpectPlainAnswer(*good, request);
  for (int32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(slow[i]->finished.has_value(), false);
    slow[i]->is_congested = false;
  }
  ASSERT_TRUE(sim.RunUntilIdle());
  for (int32_t i = 0; i < 4; ++i) {
    ExpectPlainAnswer(*slow[i], SimRequest(10, 300, 1 + i));
    EXPECT_EQ(slow[i]->finished->num_preemptions, 0);
  }
  sim.ExpectAllFree();
}

TEST(TurnsTest, SlowReadersGiveTheirPagesFirst) {
  SimOptions options;
  options.has_draft = false;
  options.num_pages = 24;  // of 8 positions
  EngineSim sim(options);
  SimClient* slow = sim.Submit(PlainRequest(60, 100, 1));
  while (slow->token_ids.size() < 20) sim.RunRound();
  slow->is_congested = true;
  const SimClient* younger = sim.Submit(PlainRequest(60, 100, 2));
  while (!younger->is_over()) sim.RunRound();
  EXPECT_EQ(younger->finished->num_preemptions, 0);
  slow->is_congested = false;
  ASSERT_TRUE(sim.RunUntilIdle());
  ExpectPlainAnswer(*slow, PlainRequest(60, 100, 1));
  ExpectPlainAnswer(*younger, PlainRequest(60, 100, 2));
  sim.ExpectAllFree();
}

}  // namespace
}  // namespace tandem::gateway
