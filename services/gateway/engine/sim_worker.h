// The pool and what both simulated workers have in common.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "common/base/clock.h"
#include "common/speculation/fake_language_model.h"
#include "common/speculation/sampler.h"
#include "common/speculation/verify.h"
#include "services/gateway/engine/worker_link.h"

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
    absl::Duration copy_cost = absl::Microseconds(100);  // of a page, to host memory or back
    double jitter = 0.0;                                 // a step may take so many times longer
    uint32_t latency_seed = 1;
  };

  SimWorker(const Options& options, SimPool* pool, VirtualClock* clock);

  // Loses everything; usable again after `downtime`, with another incarnation.
  void Kill(absl::Duration downtime);
  // The same, noticed only when the step in flight is awaited.
  void KillInNextStep(absl::Duration downtime) { kill_in_step_ = downtime; }
  // The next step is not answered in time; the link then drops the worker. It is restarted, or
  // it wakes up: the pool is then the same, its sequences ended with the session.
  void HangInNextStep(absl::Duration downtime, bool wakes_up = false) {
    hang_in_step_ = downtime;
    wakes_up_ = wakes_up;
  }
  // The next entry of a step that has one is answered with this.
  void FailNextEntry(absl::Status status) { entry_failure_ = std::move(status); }
  // The next step, or the next few, are refused as a whole with this: nothing of them is done,
  // what was before stays.
  void RefuseNextStep(absl::Status status, int32_t num_steps = 1) {
    refusal_ = std::move(status);
    num_to_refuse_ = refusal_.ok() ? 0 : num_steps;
  }
  void set_max_sequences(int32_t count) { options_.facts.max_sequences = count; }
  void set_copy_cost(absl::Duration cost) { options_.copy_cost = cost; }
  // Steps with this token in them kill the worker. -1: none does.
  int32_t deadly_token = -1;
  // Rows after this token are not finite. -1: none is.
  int32_t poison_token = -1;

  bool is_up() const { return clock_->Now() >= up_at_; }
  int32_t num_sequences() const { return static_cast<int32_t>(sequences_.size()); }
  // Steps with copies to host memory are refused: there is none.
  bool has_host_memory = true;
  // Entries that broke the rules between engine and worker: pages handed on, positions
  // beyond what was run, sequences that are not open.
  int32_t num_violations = 0;
  int32_t num_steps = 0;
  // Of the faults that were asked for, those that happened.
  int32_t num_hangs = 0;
  int32_t num_refused_steps = 0;
  int32_t num_failed_entries = 0;
  int32_t num_copies = 0;
  std::string last_violation;
  std::function<void()> on_step;  // while the step runs

 protected:
  struct SimSequence {
    std::unique_ptr<TokenSampler> sampler;
    std::vector<PageEntry> pages;
  };

  // Its sequences are gone, for its link it is another worker.
  void EndSession(absl::Duration downtime);
  absl::StatusOr<WorkerFacts> CurrentFacts() const;
  // The fault that the step in flight was to meet; OK when there is none.
  absl::Status TakeFault(const WorkerStep& step, absl::Duration timeout);
  void Take(const WorkerStep& step);
  absl::Status BeginStep(const WorkerStep& step, absl::Duration timeout);
  absl::Status Copy(const WorkerStep& step);
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
  bool wakes_up_ = false;
  absl::Status entry_failure_;
  absl::Status refusal_;
  int32_t num_to_refuse_ = 0;
  std::minstd_rand latency_;
  std::vector<std::vector<SimPool::Slot>> swap_pages_;
  int64_t swap_epoch_ = 0;  // of the pool, which is made anew with the process
  int64_t step_epoch_ = 0;  // of the pool when the step was sent
};

}  // namespace tandem::gateway
