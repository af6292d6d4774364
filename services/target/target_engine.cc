#include "services/target/target_engine.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "common/telemetry/log.h"
#include "common/worker/draft_probs.h"
#include "common/worker/finite_row.h"

namespace tandem::target {

using worker::SequenceStep;
using worker::VerifyResult;

absl::StatusOr<TargetEngine> TargetEngine::Create(Executor* executor, PoolControlView pool,
                                                  int32_t max_sequences,
                                                  worker::SwapSpace* swap_space) {
  TargetEngine engine(executor, pool, swap_space,
                      {.vocab_size = executor->config().vocab_size,
                       .max_positions = executor->limits().max_positions,
                       .positions_per_page = executor->kv_layout().page_positions,
                       .max_sequences = max_sequences});
  if (engine.runner_.max_rows() < kMaxDraftLength + 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a step of ", engine.runner_.max_rows(), " tokens cannot verify ", kMaxDraftLength,
        " drafts: raise --max-step-tokens to at least ", kMaxDraftLength + 1));
  }
  return engine;
}

worker::VerifyStepResult TargetEngine::Run(const worker::WorkerStep& step) {
  worker::VerifyStepResult result = {.step_id = step.step_id};
  if (step.pool_epoch != pool_.geometry().epoch) {
    result.status = absl::AbortedError(absl::StrCat("the step is of pool epoch ", step.pool_epoch,
                                                    ", the pool of ", pool_.geometry().epoch));
    return result;
  }
  result.status = Copy(step.copies, &result.copy);
  if (!result.status.ok()) return result;
  table_.BeginStep(step);

  const size_t count = step.sequences.size();
  seen_.clear();
  if (entries_.size() < count) entries_.resize(count);
  works_.assign(count, {});
  result.results.resize(count);
  for (size_t i = 0; i < count; ++i) {
    const SequenceStep& entry_step = step.sequences[i];
    Entry& entry = entries_[i];
    worker::ForwardWork& work = works_[i];
    result.results[i].sequence = entry_step.sequence;
    result.results[i].status = Begin(entry_step, entry);
    if (!result.results[i].status.ok() || entry.token_ids.empty()) {
      work.status = absl::CancelledError("nothing to run");
      continue;
    }
    work.start_position = entry_step.start_position;
    work.token_ids = entry.token_ids;
    work.num_logits =
        entry_step.sample ? static_cast<int32_t>(entry_step.draft_token_ids.size()) + 1 : 0;
    work.page_table = entry.sequence->page_table;
    work.candidates = entry.sequence->sampler.candidate_query();
  }

  // Once more before each pass: a process that was stopped for a while must not write
  // where it no longer may.
  const auto may_run = [&](int32_t index) {
    const int64_t end = works_[index].start_position + int64_t(works_[index].token_ids.size());
    return table_.CheckFence(step.sequences[index].sequence, *entries_[index].sequence, end, pool_);
  };
  runner_.Run(absl::MakeSpan(works_), may_run, [&](int32_t index, int32_t first_row) {
    const absl::Duration start = Clock::Steady().Now();
    Verify(step.sequences[index], *entries_[index].sequence, first_row, result.results[index]);
    result.sample += Clock::Steady().Now() - start;
  });
  result.forward = runner_.TakeForwardTime();

  for (size_t i = 0; i < count; ++i) {
    if (entries_[i].token_ids.empty()) continue;
    if (result.results[i].status.ok()) result.results[i].status = works_[i].status;
    if (result.results[i].status.ok()) continue;
    entries_[i].sequence->sampler.Rewind(step.sequences[i].start_position);
  }
  return result;
}

absl::Status TargetEngine::Copy(absl::Span<const worker::PageCopy> copies, absl::Duration* took) {
  if (copies.empty()) return absl::OkStatus();
  if (swap_space_ == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("the step has ", copies.size(),
                                                   " copies, but there are no swap pages: start ",
                                                   "the target with --swap-space"));
  }
  // The last step's passes are over: Forward returns when the device is done.
  const absl::Duration start = Clock::Steady().Now();
  absl::Status status = swap_space_->Run(copies);
  *took = Clock::Steady().Now() - start;
  if (absl::IsInternal(status)) copy_failure_ = status;
  return status;
}

absl::Status TargetEngine::TakeFailure() {
  absl::Status failure = std::exchange(copy_failure_, absl::OkStatus());
  failure.Update(runner_.TakeFailure());
  return failure;
}

absl::Status TargetEngine::Begin(const SequenceStep& step, Entry& entry) {
  entry.sequence = nullptr;
  entry.token_ids.clear();
  const auto refuse = [&step](auto... parts) {
    return absl::InvalidArgumentError(
        absl::StrCat("sequence ", static_cast<int64_t>(step.sequence), " ", parts...));
  };
  if (!seen_.insert(step.sequence).second) return refuse("is twice in one step");
  if (step.draft_token_ids.size() > kMaxDraftLength) {
    return refuse("has ", step.draft_token_ids.size(), " drafts, at most ", kMaxDraftLength);
  }
  if (!step.sample && !step.draft_token_ids.empty()) return refuse("has drafts without sample");
  if (step.sample && step.token_ids.empty()) return refuse("samples after no token");
  if (step.draft_probs_slot < -1 ||
      step.draft_probs_slot >= pool_.geometry().num_draft_probs_slots) {
    return refuse("names slot ", step.draft_probs_slot, ", the pool has ",
                  pool_.geometry().num_draft_probs_slots);
  }
  const auto num_drafts = static_cast<int32_t>(step.draft_token_ids.size());
  ASSIGN_OR_RETURN(entry.sequence, table_.Begin(step, num_drafts, pool_));
  entry.token_ids = step.token_ids;
  entry.token_ids.insert(entry.token_ids.end(), step.draft_token_ids.begin(),
                         step.draft_token_ids.end());
  return absl::OkStatus();
}

void TargetEngine::Verify(const SequenceStep& step, worker::Sequence& sequence, int32_t first_row,
                          VerifyResult& result) {
  if (sequence.sampler.takes_greatest()) {
    const auto greatest = [&](int32_t row) {
      const GreatestLogit logit = executor_->Greatest(first_row + row);
      return std::isfinite(logit.value) ? logit.token_id : -1;
    };
    if (const auto outcome = VerifyGreatest(&sequence.sampler, greatest, step.draft_token_ids)) {
      result.num_accepted = outcome->num_accepted;
      result.next_token_id = outcome->next_token_id;
      return;
    }
  }
  ReadDraftProbs(step, sequence);
  const auto candidates_of = [&](int32_t row) { return executor_->Candidates(first_row + row); };
  bool is_finite = true;
  const auto row_of = [&](int32_t row) {
    const absl::Span<float> logits = executor_->Logits(first_row + row);
    is_finite = is_finite && worker::IsFiniteRow(logits);
    return logits;
  };
  absl::StatusOr<VerifyOutcome> outcome = VerifyDraft(
      &sequence.sampler, candidates_of, row_of, step.draft_token_ids, draft_probs_, &scratch_);
  if (!is_finite) {
    result.status = absl::InternalError(
        absl::StrCat("sequence ", static_cast<int64_t>(step.sequence),
                     ": the model's logits are not finite; its weights may be damaged"));
    return;
  }
  if (!outcome.ok()) {
    result.status = outcome.status();
    return;
  }
  result.num_accepted = outcome->num_accepted;
  result.next_token_id = outcome->next_token_id;
  result.logprobs = std::move(outcome->logprobs);
}

void TargetEngine::ReadDraftProbs(const SequenceStep& step, const worker::Sequence& sequence) {
  draft_probs_.clear();
  if (sequence.sampler.params().rule != AcceptanceRule::kRejection || step.draft_probs_slot < 0 ||
      step.draft_token_ids.empty()) {
    return;
  }
  if (worker::ReadDraftProbs(*pool_.draft_probs_slot(step.draft_probs_slot), step.sequence,
                             sequence.sampler.length(), step.draft_token_ids,
                             sequence.sampler.vocab_size(), draft_probs_)) {
    return;
  }
  LogDebug(absl::StrCat("slot ", step.draft_probs_slot, " does not hold the drafts of sequence ",
                        static_cast<int64_t>(step.sequence), ": verified as certain guesses"));
}

}  // namespace tandem::target
