// Runs the small model: appends what is certain, then drafts.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/ipc/pool_exchange.h"
#include "common/model/executor.h"
#include "common/speculation/sampler.h"
#include "common/speculation/verify.h"
#include "common/worker/forward_runner.h"
#include "common/worker/sequence_table.h"
#include "common/worker/step.h"

namespace tandem::draft {

// Proposes: one pass appends the certain tokens of all sequences of a step, then one
// pass for each further draft token, over all sequences that still draft; on a device that
// drafts by itself plain drafts, greedy and COUPLED, are one call. Knows no gRPC.
// Not thread-safe.
class DraftEngine {
 public:
  // `executor` is borrowed, and so is `device`, the one it runs on (nullptr: the CPU).
  DraftEngine(Executor* executor, int32_t max_sequences, PagesDevice* device = nullptr)
      : executor_(executor), max_sequences_(max_sequences), device_(device), runner_(executor) {}

  // Maps the pool handed out at `socket_path`, in place of an older one; all sequences
  // are dropped. Idempotent for the pool that is attached. The result is the number of
  // positions one of its pages holds. Errors as ConnectPool and Executor::AttachKv.
  absl::StatusOr<int32_t> AttachPool(const std::string& socket_path, int64_t epoch,
                                     absl::Duration timeout);

  // Why the attached pool's pages are not the target's, where they are not; else empty.
  std::string pool_note() const { return pool_ == nullptr ? "" : pool_->transport_note(); }

  // Why a device that drafts by itself does not, where it does not; else empty.
  std::string draft_note() const { return executor_->draft_note(); }

  // What cannot be done for one sequence is its status, as in TargetEngine::Run; the whole
  // step fails with FAILED_PRECONDITION before a pool is attached, and with ABORTED when
  // it is of another one.
  worker::ProposeStepResult Run(const worker::WorkerStep& step);

  // The gateway is gone.
  void DropSequences() {
    if (table_ != nullptr) table_->Clear();
  }
  int32_t num_sequences() const { return table_ == nullptr ? 0 : table_->size(); }
  // See ForwardRunner::TakeFailure.
  absl::Status TakeFailure() { return runner_.TakeFailure(); }

 private:
  struct Entry {
    worker::Sequence* sequence = nullptr;  // null: not part of this step
    const worker::SequenceStep* step = nullptr;
    int32_t certain_length = 0;  // of the history, before the drafts
    int32_t next_token = 0;      // the draft token to run next
    bool is_drafting = false;
  };

  absl::Status CheckPool(const worker::WorkerStep& step) const;
  absl::Status Begin(const worker::SequenceStep& step, Entry& entry);
  // Before each pass: a process that was stopped for a while must not write where it no
  // longer may.
  absl::Status CheckFence(const Entry& entry) const;
  // The whole step by Executor::Draft, where that gives the same; false: nothing was run.
  bool RunOnDevice(worker::ProposeStepResult& result);
  bool MayRunOnDevice() const;
  void TakeDraft(Entry& entry, absl::Span<const DraftToken> draft, worker::ProposeResult& result);
  void RunOneByOne(worker::ProposeStepResult& result);
  void Draft(Entry& entry, int32_t row, worker::ProposeResult& result);
  static bool IsProposal(const Entry& entry, const DraftToken& token);
  static std::optional<Proposal> ProposeDrafted(const Entry& entry, const DraftToken& token);
  std::optional<Proposal> ProposeWithoutRow(const Entry& entry, int32_t row);
  void Take(Entry& entry, const Proposal& proposal, worker::ProposeResult& result);
  // One pass over all entries that still draft; false when there is none.
  bool RunDraftPass(worker::ProposeStepResult& result);
  void End(Entry& entry, const worker::ProposeResult& result);

  Executor* executor_;
  int32_t max_sequences_;
  PagesDevice* device_;
  worker::ForwardRunner runner_;
  std::unique_ptr<SharedPool> pool_;
  std::unique_ptr<worker::SequenceTable> table_;
  SamplerScratch scratch_;
  SparseDistribution distribution_;
  absl::flat_hash_set<SequenceId> seen_;  // in this step
  std::vector<Entry> entries_;            // of this step; memory kept
  std::vector<worker::ForwardWork> works_;
  std::vector<int32_t> work_entries_;  // entry of each work of a draft pass
  std::vector<StepSequence> device_sequences_;
  std::vector<DraftLimit> device_limits_;
  std::vector<std::vector<DraftToken>> device_drafts_;
};

}  // namespace tandem::draft
