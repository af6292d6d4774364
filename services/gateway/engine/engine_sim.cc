#include "services/gateway/engine/engine_sim.h"

#include <algorithm>

#include "common/tokenizer/incremental_decoder.h"
#include "common/tokenizer/tiny_vocabulary.h"
#include "common/tokenizer/utf8.h"
#include "gtest/gtest.h"

namespace tandem::gateway {
namespace {

SimPool MakePool(const SimOptions& options) {
  SimPool pool;
  pool.num_pages = options.num_pages;
  pool.slots_per_page = std::max(options.target_page_positions, options.draft_page_positions);
  pool.draft_probs.resize(options.num_draft_probs_slots);
  pool.Recreate();
  return pool;
}

SimWorker::Options WorkerOptions(const SimOptions& options, Role role) {
  const bool is_target = role == Role::kTarget;
  SimWorker::Options worker{.role = role, .facts = {}};
  worker.facts = {
      .incarnation = 1,
      .vocab_size = SimTokenizer().vocab_size() + (is_target ? 0 : options.num_draft_only_ids),
      .context_length = is_target ? options.context_length : options.draft_context_length,
      .positions_per_page =
          is_target ? options.target_page_positions : options.draft_page_positions,
      .max_step_tokens = options.max_step_tokens,
      .max_logits_rows = options.max_logits_rows,
      .num_swap_pages = is_target ? options.num_swap_pages : 0,
      .max_sequences = options.max_sequences};
  worker.agreement = options.agreement;
  worker.jitter = options.latency_jitter;
  worker.latency_seed = options.latency_seed + (is_target ? 0 : 1);
  if (!is_target) {
    worker.step_cost = options.draft_step_cost;
    worker.prefill_cost = options.draft_prefill_cost;
    worker.prefill_token_cost = absl::Microseconds(30);
  }
  return worker;
}

}  // namespace

const Tokenizer& SimTokenizer() {
  static const Tokenizer* const tokenizer = MakeTokenizer(TinyByteLevelSpec()).release();
  return *tokenizer;
}

void SimClient::OnStarted(const StartedInfo&) {
  EXPECT_FALSE(is_started);
  EXPECT_FALSE(is_over());
  is_started = true;
}

void SimClient::OnDelta(TokenDelta delta) {
  EXPECT_TRUE(is_started);
  EXPECT_FALSE(is_over());
  EXPECT_TRUE(IsValidUtf8(delta.text));
  EXPECT_TRUE(!delta.text.empty() || !delta.token_ids.empty());
  text += delta.text;
  token_ids.insert(token_ids.end(), delta.token_ids.begin(), delta.token_ids.end());
  logprobs.insert(logprobs.end(), delta.logprobs.begin(), delta.logprobs.end());
  ++num_deltas;
  if (on_delta) on_delta();
}

void SimClient::OnFinished(const FinishedInfo& info) {
  EXPECT_TRUE(is_started);
  EXPECT_FALSE(is_over());
  finished = info;
}

void SimClient::OnError(const absl::Status& status) {
  EXPECT_FALSE(is_over());
  EXPECT_FALSE(status.ok());
  error = status;
}

EngineSim::EngineSim(const SimOptions& options)
    : pool(MakePool(options)),
      fence(&pool),
      target(WorkerOptions(options, Role::kTarget), &pool, &clock),
      draft(WorkerOptions(options, Role::kDraft), &pool, &clock),
      engine(options.engine, &clock, &SimTokenizer(), &target, options.has_draft ? &draft : nullptr,
             &fence, &observer) {}

SimClient* EngineSim::Submit(GenerationRequest request, SequenceId* id) {
  request.arrival = clock.Now();
  clients.push_back(std::make_unique<SimClient>());
  const absl::StatusOr<SequenceId> sequence =
      engine.Submit(std::move(request), clients.back().get());
  if (!sequence.ok()) {
    clients.back()->error = sequence.status();
  } else if (id != nullptr) {
    *id = *sequence;
  }
  return clients.back().get();
}

void EngineSim::RunRound() {
  // A target that is down has no pool to show.
  fence.is_up = target.is_up();
  if (!engine.RunOnce()) clock.Advance(absl::Milliseconds(20));
}

bool EngineSim::RunUntilIdle(int32_t max_rounds) {
  return RunUntilIdle(max_rounds, [] {});
}

bool EngineSim::RunUntilIdle(int32_t max_rounds, const std::function<void()>& after_round) {
  for (int32_t i = 0; i < max_rounds; ++i) {
    if (engine.num_running() + engine.num_waiting() == 0) return true;
    RunRound();
    after_round();
  }
  return false;
}

void EngineSim::ExpectAllFree() {
  // Releases are told, to a worker that refuses steps after a while.
  for (int32_t i = 0; i < 300; ++i) RunRound();
  EXPECT_EQ(engine.num_running() + engine.num_waiting(), 0);
  EXPECT_EQ(observer.gauges.pages_free + observer.gauges.pages_idle, observer.gauges.pages_total);
  EXPECT_EQ(observer.gauges.pages_pinned, 0);
  EXPECT_EQ(observer.gauges.pages_target + observer.gauges.pages_draft, 0);
  EXPECT_EQ(observer.gauges.swap_pages_free, observer.gauges.swap_pages);
  EXPECT_EQ(target.num_violations, 0) << target.last_violation;
  EXPECT_EQ(draft.num_violations, 0) << draft.last_violation;
  EXPECT_EQ(target.num_sequences(), 0);
  EXPECT_EQ(draft.num_sequences(), 0);
  for (const auto& client : clients) EXPECT_TRUE(client->is_over());
}

namespace {

// The stop string that is complete first, and where; npos when none is.
std::pair<size_t, size_t> FirstStop(const std::string& text,
                                    const std::vector<std::string>& stops) {
  size_t best_start = std::string::npos;
  size_t best_end = std::string::npos;
  for (const std::string& stop : stops) {
    const size_t start = text.find(stop);
    if (start == std::string::npos) continue;
    const size_t end = start + stop.size();
    if (end < best_end || (end == best_end && start < best_start)) {
      best_start = start;
      best_end = end;
    }
  }
  return {best_start, best_end};
}

std::string TextOf(const std::vector<int32_t>& ids, bool is_all) {
  IncrementalDecoder decoder(&SimTokenizer(),
                             {.render_special = false, .start = DecodeStart::kContinuation});
  std::string text;
  for (const int32_t id : ids) text += decoder.Append(id);
  return is_all ? text + decoder.Flush() : text;
}

}  // namespace

ExpectedAnswer PlainAnswer(const GenerationRequest& request, int32_t context_length) {
  const FakeLanguageModel model;
  const int32_t num_prompt = static_cast<int32_t>(request.prompt.size());
  const StoppingParams& stopping = request.stopping;
  ExpectedAnswer answer;
  int32_t max_tokens = stopping.max_tokens;
  if (max_tokens == 0 || max_tokens > context_length - num_prompt) {
    max_tokens = context_length - num_prompt;
    answer.reason = FinishReason::kContextFull;
  }
  SamplingParams params = request.sampling;
  params.prompt_tokens = num_prompt;
  TokenSampler sampler(params, SimTokenizer().vocab_size());
  sampler.Append(request.prompt);
  uint64_t state = FakeLanguageModel::StateOf(request.prompt);
  SamplerScratch scratch;
  std::vector<float> logits(SimTokenizer().vocab_size());
  std::vector<int32_t> ids;
  while (static_cast<int32_t>(ids.size()) < max_tokens) {
    model.Logits(state, absl::MakeSpan(logits));
    const int32_t id = sampler.Sample(absl::MakeSpan(logits), &scratch).value();
    sampler.Append({id});
    state = FakeLanguageModel::Extend(state, id);
    const auto& stop_ids = stopping.stop_token_ids;
    if ((!stopping.ignore_eos && SimTokenizer().IsEndOfGeneration(id)) ||
        std::find(stop_ids.begin(), stop_ids.end(), id) != stop_ids.end()) {
      answer.reason = FinishReason::kStopToken;
      break;
    }
    ids.push_back(id);
    const std::string text = TextOf(ids, /*is_all=*/static_cast<int32_t>(ids.size()) == max_tokens);
    const auto [start, end] = FirstStop(text, stopping.stop);
    if (end == std::string::npos) continue;
    answer.reason = FinishReason::kStopString;
    answer.text = text.substr(0, stopping.include_stop ? end : start);
    break;
  }
  if (answer.reason != FinishReason::kStopString) {
    answer.text = TextOf(ids, /*is_all=*/true);
  }
  answer.token_ids = ids;
  return answer;
}

GenerationRequest SimRequest(int32_t num_prompt_tokens, int32_t max_tokens, uint64_t seed) {
  GenerationRequest request;
  for (int32_t i = 0; i < num_prompt_tokens; ++i) {
    request.prompt.push_back(static_cast<int32_t>((seed * 31 + i * 7) % 250));
  }
  request.sampling.seed = seed;
  request.sampling.temperature = 0.8f;
  request.stopping.max_tokens = max_tokens;
  request.stopping.ignore_eos = true;
  return request;
}

void ExpectPlainAnswer(const SimClient& client, const GenerationRequest& request) {
  ASSERT_TRUE(client.error.ok()) << client.error;
  ASSERT_TRUE(client.finished.has_value());
  EXPECT_EQ(client.token_ids, PlainAnswer(request, SimOptions().context_length).token_ids);
}

}  // namespace tandem::gateway
