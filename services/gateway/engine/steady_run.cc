#include "services/gateway/engine/steady_run.h"

#include "gtest/gtest.h"

namespace tandem::gateway {
namespace {

constexpr int32_t kMaxPrompt = 60;
constexpr int32_t kMaxTokens = 40;
// Of a few sequences that decode, with drafts. Rounds of more take longer and serve more.
constexpr absl::Duration kRound = absl::Milliseconds(50);

}  // namespace

SteadyRun::SteadyRun(uint32_t seed)
    : notice_(seed, " --steady"),
      random_(seed),
      options_(MakeOptions()),
      num_ahead_(1 + Below(4)),
      priority_(1 + Below(10)),
      sim_(options_) {}

SimOptions SteadyRun::MakeOptions() {
  SimOptions options;
  options.engine.max_running = options.max_sequences = 1 + Below(6);
  options.engine.priority_aging = absl::Milliseconds(100 + Below(2000));
  options.engine.prefix_cache = Below(2) == 0;
  options.engine.pipelining = static_cast<Pipelining>(Below(3));
  options.context_length = options.draft_context_length = kMaxPrompt + kMaxTokens;
  // A small pool holds hardly more than one: the others make it go, and come back.
  const int32_t positions = Below(2) == 0 ? 110 + Below(100) : 3000;
  options.num_pages = 1 + positions / options.target_page_positions;
  options.has_draft = Below(3) > 0;
  options.agreement = 0.1 * Below(11);
  return options;
}

GenerationRequest SteadyRun::MakeRequest() {
  GenerationRequest request =
      SimRequest(1 + Below(kMaxPrompt), 1 + Below(kMaxTokens), 1 + Below(1000));
  request.client = std::string(1, static_cast<char>('a' + Below(3)));
  return request;
}

// Who comes once the low one has waited for `priority_` steps of aging ranks behind it. Those
// that then run and wait rank before; at worst each runs alone, for a round a token and a few
// for its prompt.
absl::Duration SteadyRun::MostTime() const {
  constexpr int32_t kRoundsForPrompt = 10;
  const int32_t num_before = options_.engine.max_running + num_ahead_ + 1;
  return (priority_ + 1) * options_.engine.priority_aging +
         (num_before + 1) * (kMaxTokens + kRoundsForPrompt) * kRound;
}

void SteadyRun::Run() {
  const auto submit_high = [&] {
    GenerationRequest request = MakeRequest();
    request.priority = priority_;
    sim_.Submit(std::move(request));
  };
  for (int32_t i = 0; i < options_.engine.max_running; ++i) submit_high();
  for (int32_t i = Below(10); i > 0; --i) sim_.RunRound();
  const GenerationRequest low = MakeRequest();
  const SimClient* client = sim_.Submit(low);
  const absl::Duration latest = sim_.clock.Now() + MostTime();
  while (!client->is_over() && sim_.clock.Now() < latest) {
    while (sim_.engine.num_waiting() <= num_ahead_) submit_high();
    sim_.RunRound();
  }
  ASSERT_TRUE(client->finished.has_value())
      << client->token_ids.size() << " of " << low.stopping.max_tokens << " tokens after "
      << absl::FormatDuration(MostTime()) << " " << client->error;
  EXPECT_EQ(client->token_ids, PlainAnswer(low, options_.context_length).token_ids);
  EXPECT_TRUE(sim_.RunUntilIdle());
  sim_.ExpectAllFree();
}

}  // namespace tandem::gateway
