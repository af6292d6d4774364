#include "services/gateway/engine/random_run.h"

#include <algorithm>

#include "gtest/gtest.h"

namespace tandem::gateway {

RandomRun::RandomRun(uint32_t seed)
    : notice_(seed), random_(seed), options_(MakeOptions()), sim_(options_) {}

void RandomRun::Run() {
  num_pending_ = 1 + Below(8);
  const bool has_faults = Below(3) > 0;
  if (Below(5) == 0) sim_.draft.set_max_sequences(1 + Below(options_.max_sequences));
  SubmitSome();
  for (int32_t round = 0; round < 6000; ++round) {
    if (sim_.engine.num_running() + sim_.engine.num_waiting() == 0 && num_pending_ == 0) break;
    sim_.RunRound();
    if (Below(4) == 0) SubmitSome();
    if (has_faults && round < 2000) CauseTrouble();
    CheckRound();
  }
  EXPECT_EQ(num_pending_, 0);
  for (auto& client : sim_.clients) client->is_congested = false;
  // Each round makes a token for one of them at least, or reads part of a prompt.
  int32_t most_rounds = 200;
  for (const GenerationRequest& request : requests_) {
    most_rounds += 2 * (static_cast<int32_t>(request.prompt.size()) + options_.context_length);
  }
  EXPECT_TRUE(sim_.RunUntilIdle(most_rounds));
  CheckAnswers();
  CheckVictims();
  sim_.ExpectAllFree();
  EXPECT_TRUE(sim_.engine.CheckBooks().ok()) << sim_.engine.CheckBooks();
}

SimOptions RandomRun::MakeOptions() {
  SimOptions options;
  options.engine.max_running = options.max_sequences = 1 + Below(6);
  options.engine.max_waiting = Below(3) == 0 ? 1 + Below(3) : 256;
  options.engine.max_draft_length = 1 + Below(16);
  options.engine.prefill_chunk_tokens = 8 + Below(60);
  options.engine.prefill_stretch = 1.0 + 2.0 * Uniform();
  options.engine.priority_aging = absl::Milliseconds(100 + Below(5000));
  options.engine.congestion_timeout = absl::Hours(24);
  options.engine.target_wait = absl::Hours(24);
  options.engine.step_timeout = absl::Seconds(1 + Below(60));
  options.engine.prefix_cache = Below(4) > 0;
  options.target_page_positions = 4 + Below(12);
  // A small pool holds little more than the longest prompt.
  const int32_t positions = Below(2) == 0 ? 110 + Below(60) : 3000;
  options.num_pages = 1 + positions / options.target_page_positions;
  options.draft_page_positions = 2 + Below(6);
  options.num_draft_probs_slots = Below(4);
  options.num_swap_pages = Below(2) == 0 ? 0 : Below(2 * options.num_pages);
  options.context_length = 120 + Below(100);
  options.draft_context_length = Below(5) == 0 ? 60 : options.context_length;
  options.max_step_tokens = 24 + Below(100);
  options.max_logits_rows = 17 + Below(40);
  options.agreement = Below(3) == 0 ? 0.0 : Uniform();
  options.has_draft = Below(6) > 0;
  options.draft_step_cost = absl::Milliseconds(1 + Below(9));
  options.latency_jitter = Below(2) == 0 ? 0.0 : 2.0 * Uniform();
  options.latency_seed = static_cast<uint32_t>(random_());
  options.engine.pipelining = static_cast<Pipelining>(Below(3));
  return options;
}

std::vector<int32_t> RandomRun::MakePrompt() {
  std::vector<int32_t> prompt;
  const int32_t num_tokens = 1 + Below(Below(3) == 0 ? 100 : 30);
  const int32_t alphabet = Below(2) == 0 ? 3 : 250;
  // Conversations go on from where others are.
  if (!requests_.empty() && Below(4) > 0) {
    const size_t index = Below(static_cast<int32_t>(requests_.size()));
    prompt = requests_[index].prompt;
    const auto& answer = clients_[index]->token_ids;
    if (Below(2) == 0) prompt.insert(prompt.end(), answer.begin(), answer.end());
    prompt.resize(std::min<size_t>(prompt.size(), 20 + Below(80)));
  }
  for (int32_t i = 0; i < num_tokens && static_cast<int32_t>(prompt.size()) < 100; ++i) {
    prompt.push_back(Below(alphabet));
  }
  return prompt;
}

GenerationRequest RandomRun::MakeRequest() {
  GenerationRequest request;
  request.prompt = MakePrompt();
  request.priority = Below(3) == 0 ? Below(21) - 10 : 0;
  request.client = std::string(1, static_cast<char>('a' + Below(3)));
  if (Below(12) == 0) request.deadline = sim_.clock.Now() + absl::Milliseconds(Below(1500));
  SamplingParams& sampling = request.sampling;
  sampling.seed = random_();
  if (Below(3) > 0) sampling.temperature = static_cast<float>(0.2 + Uniform());
  if (Below(3) == 0) sampling.top_k = 1 + Below(50);
  if (Below(3) == 0) sampling.top_p = static_cast<float>(0.5 + Uniform() / 2);
  if (Below(3) == 0) sampling.repetition_penalty = 1.3f;
  if (Below(3) == 0) sampling.used_vocab_size = 5 + Below(20);  // repeats itself soon
  if (Below(4) == 0) sampling.logprobs = true;
  if (Below(8) == 0) sampling.rule = AcceptanceRule::kRejection;
  StoppingParams& stopping = request.stopping;
  if (Below(8) > 0) stopping.max_tokens = 1 + Below(60);
  stopping.ignore_eos = Below(2) == 0;
  if (Below(3) == 0) {
    for (int32_t i = 1 + Below(3); i > 0; --i) {
      std::string stop;
      for (int32_t j = 1 + Below(2); j > 0; --j) stop += static_cast<char>(Below(20));
      stopping.stop.push_back(stop);
    }
  }
  if (Below(4) == 0) stopping.stop_token_ids = {Below(20)};
  stopping.include_stop = Below(4) == 0;
  request.speculation.mode = static_cast<SpeculationMode>(Below(4));
  request.speculation.draft_length = Below(2) == 0 ? 0 : 1 + Below(16);
  request.speculation.trace = true;
  return request;
}

void RandomRun::SubmitSome() {
  for (int32_t i = Below(3); i >= 0 && num_pending_ > 0; --i) {
    SequenceId id{};
    const GenerationRequest request = MakeRequest();
    SimClient* client = sim_.Submit(request, &id);
    if (!client->error.ok()) {
      EXPECT_TRUE(absl::IsResourceExhausted(client->error)) << client->error;
      EXPECT_GE(sim_.engine.num_waiting(), options_.engine.max_waiting);
      ++num_refused_;
      return;  // comes again later
    }
    --num_pending_;
    requests_.push_back(request);
    clients_.push_back(client);
    ids_.push_back(id);
    was_cancelled_.push_back(false);
  }
}

void RandomRun::CauseTrouble() {
  switch (Below(15)) {
    case 0:
      return KillSomebody();
    case 1:
      return FailSomething();
    case 2:
      if (!requests_.empty() && Below(3) == 0) Cancel(Below(static_cast<int32_t>(ids_.size())));
      return;
    case 3:
      if (Below(2) == 0) return;
      for (auto& client : sim_.clients) client->is_congested = Below(3) == 0;
      return;
    default:
      return;
  }
}

void RandomRun::KillSomebody() {
  const absl::Duration downtime = absl::Milliseconds(Below(400));
  switch (Below(7)) {
    case 0:
      return sim_.draft.Kill(downtime);
    case 1:
      return sim_.draft.KillInNextStep(downtime);
    case 2:
      return sim_.target.Kill(downtime);
    case 3:
      return sim_.target.KillInNextStep(downtime);
    case 4:
      sim_.target.Kill(downtime);
      return sim_.draft.Kill(absl::Milliseconds(Below(400)));
    case 5:
      return sim_.draft.HangInNextStep(downtime, /*wakes_up=*/Below(2) == 0);
    default:
      return sim_.target.HangInNextStep(downtime, /*wakes_up=*/Below(2) == 0);
  }
}

void RandomRun::FailSomething() {
  switch (Below(6)) {
    case 0:
      return sim_.draft.RefuseNextStep(absl::InternalError(kRefused), 1 + Below(2));
    case 1:
      return sim_.target.RefuseNextStep(absl::InternalError(kRefused), 1 + Below(4));
    case 2:
      return sim_.target.FailNextEntry(absl::AbortedError(kHandedOn));
    case 3:
      return sim_.target.FailNextEntry(absl::InternalError(kSpoiled));
    default:
      return sim_.draft.FailNextEntry(absl::AbortedError(kHandedOn));
  }
}

void RandomRun::Cancel(int32_t index) {
  was_cancelled_[index] = was_cancelled_[index] || !clients_[index]->is_over();
  sim_.engine.Cancel(ids_[index], absl::CancelledError("client went away"));
  EXPECT_TRUE(clients_[index]->is_over());
}

}  // namespace tandem::gateway
