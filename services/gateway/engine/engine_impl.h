// The engine's state, and its parts: engine.cc queues and ends requests, recovery.cc watches
// the workers, schedule.cc picks what runs, round.cc runs it, commit.cc takes the result;
// schedule_draft.cc is what the draft does, pipeline.cc what it does ahead.
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "services/gateway/engine/batch_planner.h"
#include "services/gateway/engine/engine.h"
#include "services/gateway/engine/page_planner.h"
#include "services/gateway/engine/prefill_pacer.h"
#include "services/gateway/engine/release_queue.h"
#include "services/gateway/engine/sequence.h"
#include "services/gateway/engine/swap_planner.h"
#include "services/gateway/engine/waiting_queue.h"

namespace tandem::gateway {

// A request that was in the step each time the target died, without a token in between, is
// not run for ever: it may be the cause. Before it is blamed it runs alone.
inline constexpr int32_t kMaxTargetLosses = 3;

// Invariants between calls:
//   - a sequence is in waiting_ or in running_, which is sorted by rank, then age;
//   - waiting sequences hold no pages and no slot;
//   - tokens are the truth, KV is a cache: role(r).kv_length <= length();
//   - what a worker has open belongs to a running sequence or is queued for release.
class Engine::Impl {
 public:
  Impl(const EngineOptions& options, const Clock* clock, const Tokenizer* tokenizer,
       TargetLink* target, DraftLink* draft, PageFence* fence, EngineObserver* observer);
  ~Impl();

  absl::StatusOr<SequenceId> Submit(GenerationRequest request, GenerationSink* sink);
  void Cancel(SequenceId id, const absl::Status& reason);
  bool RunOnce();
  absl::Status CheckBooks() const;

  int32_t num_running() const { return static_cast<int32_t>(running_.size()); }
  int32_t num_waiting() const { return waiting_.size(); }

 private:
  using Sequences = std::vector<std::unique_ptr<Sequence>>;

  // One sequence's part of a round.
  struct Entry {
    Sequence* sequence = nullptr;
    int32_t num_tokens = 0;  // certain tokens for the target to run
    bool samples = false;    // a token comes out
    DraftPlan plan;
    bool is_planned = false;  // a decode: the planner chose, and is told the outcome
    std::vector<int32_t> draft_token_ids;
    int32_t num_drafted_kv = 0;  // of draft_token_ids, run by the draft
    bool is_prepared = false;    // draft_token_ids were proposed in the round before
  };
  struct Round {
    std::vector<Entry> entries;
    std::vector<Entry> ahead;   // decodes whose drafts are made meanwhile, for the next round
    bool may_be_ahead = false;  // at least two have drafts
    int32_t num_prefill_tokens = 0;
    int32_t num_prompts = 0;  // that wait for their first token
    WorkerStep propose;
    std::vector<Sequence*> proposing;  // of propose.sequences
    bool has_proposals = false;        // else it only fills the draft's cache
    bool waits_for_draft = false;      // its steps run one after the other, each alone
    // In halves, and yet its steps run alone, to be measured.
    bool is_measuring() const { return waits_for_draft && !ahead.empty(); }
    absl::Duration propose_sent;
  };

  // What is known of one worker.
  struct Worker {
    std::optional<WorkerFacts> facts;  // none while it is down
    absl::Duration down_since;
    absl::Status refusal;     // not OK: there is nothing to wait for
    int64_t incarnation = 0;  // that `release` is for
    ReleaseQueue release;
    absl::Duration retry_at = absl::ZeroDuration();
    absl::Duration backoff = absl::ZeroDuration();
    int32_t num_refusals = 0;  // steps refused in a row
  };

  // engine.cc
  absl::StatusOr<SequenceLimits> LimitsFor(int64_t num_prompt_tokens, int64_t max_tokens) const;
  Sequence* Find(SequenceId id);
  std::unique_ptr<Sequence> Remove(Sequence* sequence);
  void Fail(Sequence* sequence, const absl::Status& status);
  void Finish(Sequence* sequence, const OutputAssembler::End& end);
  bool EndOverdue();
  std::optional<absl::Status> Overdue(absl::Duration now, Sequence* sequence);
  void ReportGauges();

  // recovery.cc
  Worker& worker(Role role) { return role == Role::kTarget ? target_ : draft_; }
  static void Connect(const WorkerFacts& facts, Worker* to);
  void RefreshTarget();
  void RefreshDraft();
  void LoseTarget(const absl::Status& status);
  void LoseDraft(const absl::Status& status);
  void ForgetAll(Role role);
  void DropKv(Role role, Sequence* sequence);
  bool EndWithoutTarget();
  void BlameForLoss(const std::vector<Entry>& entries, const absl::Status& status);

  // swap.cc
  void SwapOut(Sequence* sequence);
  void SwapIn(Sequence* sequence);
  void ForgetSwapped();
  bool BlameSwap(const absl::Status& status);

  // schedule.cc
  void Admit();
  bool FitsBesideOthers(const Sequence& sequence) const;
  bool YieldCongested();
  void AttachCached(Role role, Sequence* sequence);
  OpenSequence Open(Role role, Sequence* sequence);
  Round Schedule();
  std::vector<Sequence*> ChooseActive();
  bool PrepareAdmission(Sequence* sequence);
  int32_t PrefillBudget(int32_t num_decoding, int32_t num_prefilling) const;
  std::vector<int32_t> SharesOf(const std::vector<Sequence*>& active);
  bool MakeRoom(int32_t num_positions, Sequence* sequence);
  bool DropYoungestDraftPages();
  bool GrowOverDrafts(int32_t num_positions, Sequence* sequence);
  void Preempt(Sequence* sequence);
  void BackToQueue(Sequence* sequence);
  void PlanDrafts(Round* round);
  DraftRequest DraftRequestOf(Sequence* sequence);
  int32_t MaxDraftTokens(const Sequence& sequence) const;

  // schedule_draft.cc
  int32_t PagesNotForDraft(const Sequence& sequence) const;
  std::string_view PrepareForDraft(Sequence* sequence);
  bool IsWorthFilling(const Sequence& sequence) const;
  void ScheduleProposals(Round* round);
  int32_t CatchUpBudget(const Round& round, int32_t num_missing);
  std::vector<Sequence*> ChooseToFill(const std::vector<Sequence*>& active) const;
  void ScheduleCatchUp(const std::vector<Sequence*>& active, Round* round);
  bool AddToPropose(Sequence* sequence, int32_t num_tokens, const DraftPlan& plan, Round* round);

  // pipeline.cc
  void TakePrepared(Round* round);
  void MoveAhead(Round* round);
  void PutBackFromAhead(Round* round);
  void KeepPrepared(Round* round);
  void ObserveRound(const Round& round, const VerifyStepResult& result, absl::Duration duration);

  // round.cc
  void Start(Sequence* sequence);
  void SendPropose(Round* round);
  void OnAnswered(Role role, const std::vector<Sequence*>& sequences);
  void AwaitPropose(Round* round);
  void ChargeForDraft(const Round& round, const ProposeStepResult& result, double seconds);
  void ObservePropose(const Round& round, const ProposeStepResult& result,
                      absl::Duration round_trip);
  void TakeProposals(const ProposeStepResult& result, Round* round);
  void RefusedByDraft(Sequence* sequence);
  WorkerStep VerifyStepOf(const Round& round);
  void TakeProposal(const Round& round, const ProposeStepResult& result, Entry* entry) const;
  void RunRound(Round* round);
  void CheckVerifyResult(const Round& round, VerifyStepResult* result) const;
  bool SendReleases();

  // commit.cc
  void LearnCosts(const Round& round, int32_t num_rows, bool was_overlapped, double seconds);
  void Commit(Round* round, const VerifyStepResult& result, bool was_overlapped,
              absl::Duration round_trip);
  void CommitOne(absl::Duration now, Entry* entry, const VerifyResult& result);
  void ReportProgress(absl::Duration now, const Entry& entry, int32_t num_committed,
                      int32_t num_accepted);
  void ShareFullPages(Sequence* sequence);
  void FailOrReplay(Sequence* sequence, const absl::Status& status);

  const EngineOptions options_;
  const Clock* clock_;
  const Tokenizer* tokenizer_;
  TargetLink* target_link_;
  DraftLink* draft_link_;  // null: no draft
  PageFence* fence_;
  EngineObserver* observer_;

  PagePlanner pages_;
  SwapPlanner swap_;
  int64_t incarnation_without_swap_ = -1;  // of a target that had no memory for it
  DraftPlanner planner_;
  Worker target_;
  Worker draft_;
  PrefillPacer pacer_;
  PipelineChooser chooser_;
  MeasuringTurns measuring_turns_;
  WaitingQueue waiting_;
  Sequences running_;
  int64_t next_id_ = 1;
  size_t next_in_turn_ = 0;
  size_t next_prefill_ = 0;               // who is first for prefill tokens, in turn
  DraftPlanner::StepPrices step_prices_;  // of the present round
  double catch_up_seconds_ = 0.0;         // saved up for the draft to read what it lacks
  double mean_draft_length_ = 0.0;
  int64_t num_evicted_ = 0;                           // that the observer was told of
  absl::Duration plain_step_ = absl::ZeroDuration();  // as measured; zero: not yet

  bool has_preempted_ = false;  // who had to go for want of pages waits for its turn

  // Sinks are called in the middle of a round: what they ask for waits until its end.
  bool in_round_ = false;
  std::vector<std::pair<SequenceId, absl::Status>> cancelled_;
};

}  // namespace tandem::gateway
