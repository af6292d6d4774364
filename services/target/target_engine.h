// Runs the large model over batched steps and decides over the drafts.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "common/kv/pool_control.h"
#include "common/model/executor.h"
#include "common/speculation/sampler.h"
#include "common/speculation/verify.h"
#include "common/worker/forward_runner.h"
#include "common/worker/sequence_table.h"
#include "common/worker/step.h"
#include "common/worker/swap_space.h"

namespace tandem::target {

// Verifies: one forward pass over the ragged batch of a step (more where it does not
// fit one), then, for each sequence that asks for it, its drafts against the logits.
// Knows no gRPC. Not thread-safe.
class TargetEngine {
 public:
  // All are borrowed; the executor has the pages of `pool` attached, and `swap_space` (which may be
  // null: there are no swap pages) is of the same. INVALID_ARGUMENT when the executor's limits are
  // too small for one sequence's verify.
  static absl::StatusOr<TargetEngine> Create(Executor* executor, PoolControlView pool,
                                             int32_t max_sequences,
                                             worker::SwapSpace* swap_space = nullptr);

  // What cannot be done for one sequence is that sequence's status, and rewinds it to the
  // entry's start_position; the others go on. Codes as in SequenceTable::Begin, and
  // INTERNAL for logits that are not finite, FAILED_PRECONDITION when no token may be
  // chosen. The whole step fails with ABORTED when it is of another pool, and as
  // SwapSpace::Run when its copies cannot be made.
  worker::VerifyStepResult Run(const worker::WorkerStep& step);

  // The gateway is gone.
  void DropSequences() { table_.Clear(); }
  int32_t num_sequences() const { return table_.size(); }
  // See ForwardRunner::TakeFailure; of copies too.
  absl::Status TakeFailure();

 private:
  // One entry of the step that passed the checks, or whose work.status says why not.
  struct Entry {
    worker::Sequence* sequence = nullptr;
    std::vector<int32_t> token_ids;  // certain tokens, then drafts
  };

  TargetEngine(Executor* executor, PoolControlView pool, worker::SwapSpace* swap_space,
               worker::SequenceLimits limits)
      : executor_(executor),
        pool_(pool),
        swap_space_(swap_space),
        table_(limits),
        runner_(executor) {}

  // Makes the copies of a step, and measures them.
  absl::Status Copy(absl::Span<const worker::PageCopy> copies, absl::Duration* took);

  absl::Status Begin(const worker::SequenceStep& step, Entry& entry);
  void Verify(const worker::SequenceStep& step, worker::Sequence& sequence, int32_t first_row,
              worker::VerifyResult& result);
  // Leaves in draft_probs_ what the drafts were drawn from, or nothing when the slot
  // does not say so of these very drafts: they then count as certain guesses, which is
  // exact too and accepts less.
  void ReadDraftProbs(const worker::SequenceStep& step, const worker::Sequence& sequence);

  Executor* executor_;
  PoolControlView pool_;
  worker::SwapSpace* swap_space_;
  absl::Status copy_failure_;  // INTERNAL: the device's
  worker::SequenceTable table_;
  worker::ForwardRunner runner_;
  SamplerScratch scratch_;
  absl::flat_hash_set<SequenceId> seen_;  // in this step
  std::vector<Entry> entries_;            // of this step; memory kept
  std::vector<worker::ForwardWork> works_;
  std::vector<SparseDistribution> draft_probs_;
};

}  // namespace tandem::target
