#include "common/worker/forward_runner.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/base/clock.h"

namespace tandem::worker {

int32_t ForwardRunner::max_rows() const {
  const ExecutorLimits& limits = executor_->limits();
  return std::min(limits.max_logits_rows, limits.max_step_tokens);
}

void ForwardRunner::Run(absl::Span<ForwardWork> works, MayRun may_run, OnLogits on_logits) {
  for (const ForwardWork& work : works) {
    TANDEM_CHECK(!work.status.ok() || !work.token_ids.empty());
    TANDEM_CHECK(work.num_logits <= max_rows());
  }
  next_work_ = 0;
  next_token_ = 0;
  while (true) {
    Fill(works, may_run);
    if (sequences_.empty()) return;
    RunPass(works, on_logits);
  }
}

void ForwardRunner::Fill(absl::Span<ForwardWork> works, MayRun may_run) {
  sequences_.clear();
  pieces_.clear();
  size_t tokens_left = executor_->limits().max_step_tokens;
  int32_t rows_left = executor_->limits().max_logits_rows;
  while (next_work_ < works.size() && tokens_left > 0) {
    ForwardWork& work = works[next_work_];
    if (work.status.ok()) work.status = may_run(static_cast<int32_t>(next_work_));
    if (!work.status.ok()) {
      ++next_work_;
      next_token_ = 0;
      continue;
    }
    const size_t left = work.token_ids.size() - next_token_;
    const bool is_last = left <= tokens_left && work.num_logits <= rows_left;
    // The tokens that give logits stay together, in the last piece.
    const size_t without_logits = left - work.num_logits;
    const size_t size = is_last ? left : std::min(tokens_left, without_logits);
    if (size > 0) {
      sequences_.push_back({
          .start_position = work.start_position + static_cast<int32_t>(next_token_),
          .token_ids = work.token_ids.subspan(next_token_, size),
          .num_logits = is_last ? work.num_logits : 0,
          .page_table = work.page_table,
          .candidates = is_last ? work.candidates : CandidateQuery{},
      });
      pieces_.push_back({.work_index = static_cast<int32_t>(next_work_), .is_last = is_last});
    }
    if (!is_last) {
      next_token_ += size;
      return;
    }
    tokens_left -= size;
    rows_left -= work.num_logits;
    ++next_work_;
    next_token_ = 0;
  }
}

void ForwardRunner::RunPass(absl::Span<ForwardWork> works, OnLogits on_logits) {
  const auto finish = [&](size_t i, int32_t first_row) {
    if (pieces_[i].is_last && sequences_[i].num_logits > 0) {
      on_logits(pieces_[i].work_index, first_row);
    }
  };
  absl::Status status = Forward(sequences_);
  if (status.ok()) {
    int32_t row = 0;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      finish(i, row);
      row += sequences_[i].num_logits;
    }
    return;
  }
  for (size_t i = 0; i < sequences_.size(); ++i) {
    if (sequences_.size() > 1) status = Forward({&sequences_[i], 1});
    if (status.ok()) {
      finish(i, 0);
    } else {
      if (absl::IsInternal(status)) failure_ = status;
      works[pieces_[i].work_index].status = status;
    }
  }
}

absl::Status ForwardRunner::Forward(absl::Span<const StepSequence> sequences) {
  const absl::Duration start = Clock::Steady().Now();
  absl::Status status = executor_->Forward(sequences);
  forward_time_ += Clock::Steady().Now() - start;
  return status;
}

absl::Duration ForwardRunner::TakeForwardTime() {
  return std::exchange(forward_time_, absl::ZeroDuration());
}

}  // namespace tandem::worker
