// The engine on simulated workers and a virtual clock: a fake language model behind real
// sampling, real page tables and real fences, with latencies, deaths and refusals on
// request. Everything is decided by seeds: a run can be repeated exactly.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "services/gateway/engine/engine.h"
#include "services/gateway/engine/sim_workers.h"

namespace tandem::gateway {

// A client; remembers what came and fails the test when the sink's contract is broken.
class SimClient final : public GenerationSink {
 public:
  void OnStarted(const StartedInfo& info) override;
  void OnDelta(TokenDelta delta) override;
  void OnFinished(const FinishedInfo& info) override;
  void OnError(const absl::Status& status) override;
  bool IsCongested() const override { return is_congested; }

  bool is_over() const { return finished.has_value() || !error.ok(); }

  bool is_congested = false;
  std::function<void()> on_delta;
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<TokenLogprob> logprobs;
  bool is_started = false;
  int32_t num_deltas = 0;
  std::optional<FinishedInfo> finished;
  absl::Status error;
};

// Counts what the engine tells.
class SimObserver final : public EngineObserver {
 public:
  void OnStep(const StepInfo& info) override {
    ++num_steps[static_cast<int>(info.role)];
    if (on_step) on_step(info);
  }
  void OnSequenceStep(const SequenceStepInfo& info) override {
    ++sequence_steps[static_cast<int>(info.source)];
    if (!info.bypass_reason.empty()) ++bypass_reasons[std::string(info.bypass_reason)];
  }
  void OnFirstToken(absl::Duration, absl::Duration) override { ++num_first_tokens; }
  void OnInterTokenLatency(absl::Duration, int32_t) override {}
  void OnFinished(const FinishedInfo&) override { ++num_finished; }
  void OnFailed(const absl::Status&) override { ++num_failed; }
  void OnPrefixLookup(Role role, int32_t, int32_t num_cached) override {
    num_cached_tokens[static_cast<int>(role)] += num_cached;
  }
  void OnPressure(PressureRung rung, int32_t count) override {
    pressure[static_cast<int>(rung)] += count;
  }
  int64_t num_preemptions() const { return pressure[static_cast<int>(PressureRung::kPreempt)]; }
  void OnSwapped(int32_t num_pages, bool to_host) override {
    (to_host ? num_swapped_out : num_swapped_in) += num_pages;
  }
  void OnWorkerLost(Role role, const absl::Status&) override { ++num_lost[static_cast<int>(role)]; }
  void OnGauges(const EngineGauges& latest) override { gauges = latest; }

  std::function<void(const StepInfo&)> on_step;
  int32_t num_steps[kNumRoles] = {};
  int32_t sequence_steps[3] = {};
  int32_t num_first_tokens = 0, num_finished = 0, num_failed = 0;
  int32_t num_lost[kNumRoles] = {};
  int64_t num_cached_tokens[kNumRoles] = {};
  std::map<std::string, int32_t> bypass_reasons;
  int64_t pressure[kNumPressureRungs] = {};
  int64_t num_swapped_out = 0, num_swapped_in = 0;  // pages
  EngineGauges gauges;
};

struct SimOptions {
  EngineOptions engine;
  int32_t num_pages = 200;
  int32_t target_page_positions = 8;
  int32_t draft_page_positions = 16;
  int32_t num_draft_probs_slots = 4;
  int32_t num_swap_pages = 0;
  int32_t context_length = 400;
  int32_t draft_context_length = 400;
  int32_t max_step_tokens = 64;
  int32_t max_logits_rows = 40;
  int32_t max_sequences = 256;
  double agreement = 0.8;
  bool has_draft = true;
  int32_t num_draft_only_ids = 0;
  absl::Duration draft_step_cost = absl::Milliseconds(2);
  absl::Duration draft_prefill_cost;
  double latency_jitter = 0.0;
  uint32_t latency_seed = 1;
};

// One gateway's engine with its workers. Tokens are those of a byte-level vocabulary.
class EngineSim {
 public:
  explicit EngineSim(const SimOptions& options = {});

  // A new client for the request; arrival and the like are filled in.
  SimClient* Submit(GenerationRequest request, SequenceId* id = nullptr);
  // Rounds until nothing is left to do and no request is left; false when that takes more
  // than `max_rounds`. Idle time passes in small steps.
  bool RunUntilIdle(int32_t max_rounds = 20000);
  // The same, after each round calling `after_round`.
  bool RunUntilIdle(int32_t max_rounds, const std::function<void()>& after_round);
  void RunRound();

  // Fails the test unless all pages, slots and sequences are free again, no rule was
  // broken, and each client was told its end once.
  void ExpectAllFree();

  VirtualClock clock;
  SimPool pool;
  SimFence fence;
  SimTarget target;
  SimDraft draft;
  SimObserver observer;
  Engine engine;
  std::vector<std::unique_ptr<SimClient>> clients;
};

const Tokenizer& SimTokenizer();

// A sampled request that runs to max_tokens; another for each seed.
GenerationRequest SimRequest(int32_t num_prompt_tokens, int32_t max_tokens, uint64_t seed = 1);

// What the request's answer must be: one token at a time by the target's model alone.
struct ExpectedAnswer {
  std::string text;
  std::vector<int32_t> token_ids;
  FinishReason reason = FinishReason::kMaxTokens;
};
ExpectedAnswer PlainAnswer(const GenerationRequest& request, int32_t context_length);
// Fails the test unless the client has it, under SimOptions' context.
void ExpectPlainAnswer(const SimClient& client, const GenerationRequest& request);

}  // namespace tandem::gateway
