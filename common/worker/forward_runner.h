// Cuts a step into forward passes that fit the executor.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/model/executor.h"

namespace tandem::worker {

// Tokens of one sequence to run; borrowed.
struct ForwardWork {
  int32_t start_position = 0;
  absl::Span<const int32_t> token_ids;  // at least 1 unless status is not OK
  int32_t num_logits = 0;               // of the last tokens; at most runner.max_rows()
  absl::Span<const int32_t> page_table;
  CandidateQuery candidates;  // of its first row of logits
  absl::Status status;        // not OK: left out; set when its pass fails
};

// Called as soon as all tokens of a work with logits have run: its rows start at
// `first_row` of the executor and are there until the call returns.
using OnLogits = absl::FunctionRef<void(int32_t work_index, int32_t first_row)>;

// Called before each pass for each work that has tokens in it: not OK takes the work out.
using MayRun = absl::FunctionRef<absl::Status(int32_t work_index)>;

// Not thread-safe.
class ForwardRunner {
 public:
  // `executor` is borrowed.
  explicit ForwardRunner(Executor* executor) : executor_(executor) {}

  // Rows that one sequence may want, so that they fit one pass.
  int32_t max_rows() const;

  // Runs all works, cut where the limits ask for it: the logits are the same wherever.
  // When a pass over several fails they are run one by one, so that the one that does
  // not work is found and the others go on.
  void Run(absl::Span<ForwardWork> works, MayRun may_run, OnLogits on_logits);

  // INTERNAL: how a pass failed, since the last call, that did so even with one sequence by
  // itself. What a sequence asks for has other codes: this is the executor's, or its device's.
  absl::Status TakeFailure() { return std::exchange(failure_, absl::OkStatus()); }

  // Time spent in forward passes since the last call.
  absl::Duration TakeForwardTime();

 private:
  struct Piece {
    int32_t work_index;
    bool is_last;
  };
  // Fills the next pass from works_[next_work_] on.
  void Fill(absl::Span<ForwardWork> works, MayRun may_run);
  void RunPass(absl::Span<ForwardWork> works, OnLogits on_logits);
  absl::Status Forward(absl::Span<const StepSequence> sequences);

  Executor* executor_;
  absl::Status failure_;
  absl::Duration forward_time_ = absl::ZeroDuration();
  size_t next_work_ = 0;
  size_t next_token_ = 0;  // of works[next_work_]
  std::vector<StepSequence> sequences_;
  std::vector<Piece> pieces_;  // of each of sequences_
};

}  // namespace tandem::worker
