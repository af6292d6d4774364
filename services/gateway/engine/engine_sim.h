// The engine on simulated workers and a virtual clock: a fake language model behind real
// sampling, real page tables and real fences, with latencies, deaths and refusals on
// request. Everything is decided by seeds: a run can be repeated exactly.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "common/base/clock.h"
#include "common/kv/page_pool.h"
#include "common/speculation/fake_language_model.h"
#include "common/speculation/sampler.h"
#include "common/speculation/verify.h"
#include "services/gateway/engine/engine.h"

namespace tandem::gateway {

// The shared pool as the workers see it. The "KV" of a position is the model's state after
// its token, made from that of the position before: a wrong page spoils all that follows.
struct SimPool {
  struct Slot {
    uint64_t state = 0;
    bool is_written = false;
  };
  int64_t epoch = 1;
  int32_t num_pages = 0;
  int32_t slots_per_page = 0;
  std::vector<uint32_t> generations;
  std::vector<std::vector<Slot>> pages;
  std::vector<std::vector<SparseDistribution>> draft_probs;  // by slot

  void Recreate();
};

class SimFence final : public PageFence {
 public:
  explicit SimFence(SimPool* pool) : pool_(pool) {}
  absl::StatusOr<PoolFacts> Facts() override;
  void SetGeneration(PageId page, uint32_t generation) override;
  bool is_up = true;

 private:
  SimPool* pool_;
};

// What both simulated workers have in common.
class SimWorker {
 public:
  struct Options {
    Role role = Role::kTarget;
    WorkerFacts facts;
    double agreement = 1.0;  // of a draft; see FakeLanguageModel
    absl::Duration step_cost = absl::Milliseconds(10);
    absl::Duration row_cost = absl::Milliseconds(1);
    absl::Duration prefill_cost;  // of a draft's step, beside its tokens'
    absl::Duration prefill_token_cost = absl::Microseconds(200);
    double jitter = 0.0;  // a step may take so many times longer
  };

  SimWorker(const Options& options, SimPool* pool, VirtualClock* clock);

  // Loses everything; usable again after `downtime`, with another incarnation.
  void Kill(absl::Duration downtime);
  // The same, noticed only when the step in flight is awaited.
  void KillInNextStep(absl::Duration downtime) { kill_in_step_ = downtime; }
  // The next step is not answered in time; the link then drops the worker.
  void HangInNextStep(absl::Duration downtime) { hang_in_step_ = downtime; }
  // The next entry of a step that has one is answered with this.
  void FailNextEntry(absl::Status status) { entry_failure_ = std::move(status); }
  // The next whole step is refused with this: nothing of it is done, what was before stays.
  void RefuseNextStep(absl::Status status) { refusal_ = std::move(status); }
  void set_max_sequences(int32_t count) { options_.facts.max_sequences = count; }
  // Steps with this token in them kill the worker. -1: none does.
  int32_t deadly_token = -1;
  // Rows after this token are not finite. -1: none is.
  int32_t poison_token = -1;

  bool is_up() const { return clock_->Now() >= up_at_; }
  int32_t num_sequences() const { return static_cast<int32_t>(sequences_.size()); }
  // Entries that broke the rules between engine and worker: pages handed on, positions
  // beyond what was run, sequences that are not open.
  int32_t num_violations = 0;
  int32_t num_steps = 0;
  std::string last_violation;
  std::function<void()> on_step;  // while the step runs

 protected:
  struct SimSequence {
    std::unique_ptr<TokenSampler> sampler;
    std::vector<PageEntry> pages;
  };

  absl::StatusOr<WorkerFacts> CurrentFacts() const;
  void Take(const WorkerStep& step);
  absl::Status BeginStep(const WorkerStep& step, absl::Duration timeout);
  absl::StatusOr<SimSequence*> BeginEntry(const SequenceStep& step, int32_t num_more);
  // Lets the time of a step pass, with jitter; what it took.
  absl::Duration Spend(absl::Duration cost, absl::Duration timeout);
  // Runs one token at `position`; its state, which makes the logits of the next.
  uint64_t RunToken(SimSequence* sequence, int32_t position, int32_t token_id);
  void Logits(uint64_t state, std::vector<float>* logits) const;
  absl::Status Violation(std::string what);

  Options options_;
  SimPool* pool_;
  VirtualClock* clock_;
  FakeLanguageModel model_;
  SamplerScratch scratch_;
  absl::flat_hash_map<SequenceId, SimSequence> sequences_;
  absl::flat_hash_set<SequenceId> refused_;  // by this step, for want of room
  std::optional<WorkerStep> in_flight_;
  absl::Duration up_at_ = absl::ZeroDuration();
  std::optional<absl::Duration> kill_in_step_;
  std::optional<absl::Duration> hang_in_step_;
  absl::Status entry_failure_;
  absl::Status refusal_;
  std::minstd_rand latency_{1};
  int64_t step_epoch_ = 0;  // of the pool when the step was sent
};

class SimTarget final : public SimWorker, public TargetLink {
 public:
  using SimWorker::SimWorker;
  absl::StatusOr<WorkerFacts> Facts() override { return CurrentFacts(); }
  void Send(const WorkerStep& step) override { Take(step); }
  absl::StatusOr<VerifyStepResult> Await(absl::Duration timeout) override;

  std::set<int32_t> drafts_seen;  // ids that came as drafts

 private:
  VerifyResult RunEntry(const SequenceStep& step);
};

class SimDraft final : public SimWorker, public DraftLink {
 public:
  using SimWorker::SimWorker;
  absl::StatusOr<WorkerFacts> Facts() override;
  void Send(const WorkerStep& step) override { Take(step); }
  absl::StatusOr<ProposeStepResult> Await(absl::Duration timeout) override;

  std::set<int32_t> ids_drafted;

 private:
  int64_t attached_epoch_ = 0;  // of the pool
  ProposeResult RunEntry(const SequenceStep& step);
};

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
  EngineGauges gauges;
};

struct SimOptions {
  EngineOptions engine;
  int32_t num_pages = 200;
  int32_t target_page_positions = 8;
  int32_t draft_page_positions = 16;
  int32_t num_draft_probs_slots = 4;
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
