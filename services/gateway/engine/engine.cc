#include "services/gateway/engine/engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "services/gateway/engine/engine_impl.h"

namespace tandem::gateway {

const char* PressureRungName(PressureRung rung) {
  constexpr const char* kNames[kNumPressureRungs] = {"evict_cached", "shorten_drafts",
                                                     "drop_draft_pages", "preempt", "refuse"};
  return kNames[static_cast<int>(rung)];
}

Engine::Engine(const EngineOptions& options, const Clock* clock, const Tokenizer* tokenizer,
               TargetLink* target, DraftLink* draft, PageFence* fence, EngineObserver* observer)
    : impl_(std::make_unique<Impl>(options, clock, tokenizer, target, draft, fence, observer)) {}

Engine::~Engine() = default;

absl::StatusOr<SequenceId> Engine::Submit(GenerationRequest request, GenerationSink* sink) {
  return impl_->Submit(std::move(request), sink);
}

void Engine::Cancel(SequenceId sequence, const absl::Status& reason) {
  impl_->Cancel(sequence, reason);
}

bool Engine::RunOnce() { return impl_->RunOnce(); }

absl::Status Engine::CheckBooks() const { return impl_->CheckBooks(); }
int32_t Engine::num_running() const { return impl_->num_running(); }
int32_t Engine::num_waiting() const { return impl_->num_waiting(); }

Engine::Impl::Impl(const EngineOptions& options, const Clock* clock, const Tokenizer* tokenizer,
                   TargetLink* target, DraftLink* draft, PageFence* fence, EngineObserver* observer)
    : options_(options),
      clock_(clock),
      tokenizer_(tokenizer),
      target_link_(target),
      draft_link_(draft),
      fence_(fence),
      observer_(observer),
      pages_(fence, options.prefix_cache),
      pacer_({.stretch = options.prefill_stretch,
              .max_stretch = std::max(1.9, options.prefill_stretch),
              .max_tokens = options.prefill_chunk_tokens}),
      chooser_(options.pipelining),
      waiting_(options.priority_aging) {
  target_.down_since = draft_.down_since = clock->Now();
}

Engine::Impl::~Impl() = default;

// How long the output may become; INVALID_ARGUMENT when not even the prompt fits.
absl::StatusOr<SequenceLimits> Engine::Impl::LimitsFor(int64_t prompt, int64_t max_tokens) const {
  if (prompt == 0) return absl::InvalidArgumentError("the prompt has no tokens");
  int64_t context = options_.max_context > 0 ? options_.max_context : INT32_MAX;
  if (target_.facts) {
    context = std::min<int64_t>(context, target_.facts->context_length);
    const int64_t capacity = pages_.Capacity(Role::kTarget);
    if (prompt > capacity) {
      return absl::InvalidArgumentError(
          absl::StrCat("the prompt has ", prompt, " tokens, the page pool holds ", capacity, " (",
                       pages_.num_pages(), " pages of ", target_.facts->positions_per_page,
                       " positions): shorten the prompt or start with a larger pool"));
    }
    // The last token is never run, so it needs no page.
    context = std::min(context, capacity + 1);
  }
  if (prompt >= context) {
    return absl::InvalidArgumentError(absl::StrCat("the prompt has ", prompt,
                                                   " tokens, the context ", context,
                                                   " for prompt and output: shorten the prompt"));
  }
  const int64_t room = context - prompt;
  if (max_tokens > 0 && max_tokens <= room) {
    return SequenceLimits{.max_tokens = static_cast<int32_t>(max_tokens)};
  }
  return SequenceLimits{.max_tokens = static_cast<int32_t>(room),
                        .reason_at_max_tokens = FinishReason::kContextFull};
}

absl::StatusOr<SequenceId> Engine::Impl::Submit(GenerationRequest request, GenerationSink* sink) {
  if (!in_round_) RefreshTarget();
  if (num_waiting() >= options_.max_waiting) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the queue is full: ", num_waiting(), " requests wait, at most ", options_.max_waiting));
  }
  ASSIGN_OR_RETURN(
      const SequenceLimits limits,
      LimitsFor(static_cast<int64_t>(request.prompt.size()), request.stopping.max_tokens));
  const SequenceId id{next_id_++};
  waiting_.Push(std::make_unique<Sequence>(id, std::move(request), sink, tokenizer_, limits),
                clock_->Now());
  return id;
}

Sequence* Engine::Impl::Find(SequenceId id) {
  for (const auto& sequence : running_) {
    if (sequence->id == id) return sequence.get();
  }
  for (const auto& sequence : waiting_) {
    if (sequence->id == id) return sequence.get();
  }
  return nullptr;
}

void Engine::Impl::Cancel(SequenceId id, const absl::Status& reason) {
  if (in_round_) {
    cancelled_.emplace_back(id, reason);
    return;
  }
  const bool is_kept = absl::IsCancelled(reason) || absl::IsDeadlineExceeded(reason);
  const absl::Status status = is_kept ? reason : absl::CancelledError(reason.message());
  if (Sequence* sequence = Find(id)) Fail(sequence, status);
}

std::unique_ptr<Sequence> Engine::Impl::Remove(Sequence* sequence) {
  const auto is_it = [&](const auto& other) { return other.get() == sequence; };
  std::unique_ptr<Sequence> removed;
  if (const auto i = std::find_if(running_.begin(), running_.end(), is_it); i != running_.end()) {
    removed = std::move(*i);
    running_.erase(i);
  } else {
    removed = waiting_.Remove(sequence);
  }
  for (const Role role : {Role::kTarget, Role::kDraft}) DropKv(role, sequence);
  swap_.Free(removed->swapped.places);
  return removed;
}

void Engine::Impl::Fail(Sequence* sequence, const absl::Status& status) {
  const std::unique_ptr<Sequence> removed = Remove(sequence);
  observer_->OnFailed(status);
  removed->sink->OnError(status);
}

void Engine::Impl::Finish(Sequence* sequence, const OutputAssembler::End& end) {
  const std::unique_ptr<Sequence> removed = Remove(sequence);
  FinishedInfo& info = removed->info;
  const absl::Duration arrival = removed->request.arrival;
  info.reason = end.reason;
  info.stop = end.stop;
  info.stop_token_id = end.stop_token_id;
  info.output_tokens = removed->output.num_tokens();
  info.queue = removed->first_step - arrival;
  info.prefill = removed->first_token - removed->first_step;
  info.decode = removed->last_commit - removed->first_token;
  info.time_to_first_token = removed->first_token - arrival;
  info.total = clock_->Now() - arrival;
  observer_->OnFinished(info);
  removed->sink->OnFinished(info);
}

// Why the request must end now, if it must.
std::optional<absl::Status> Engine::Impl::Overdue(absl::Duration now, Sequence* sequence) {
  if (now >= sequence->request.deadline) {
    return absl::DeadlineExceededError(
        absl::StrCat("the deadline passed after ", sequence->num_output_tokens(), " tokens"));
  }
  if (!sequence->is_started || !sequence->sink->IsCongested()) {
    if (sequence->is_congested() && !sequence->is_running) sequence->waiting_since = now;
    sequence->congested_since = absl::InfiniteDuration();
  } else if (!sequence->is_congested()) {
    sequence->congested_since = now;
  } else if (now - sequence->congested_since >= options_.congestion_timeout) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the client has not read for ", absl::FormatDuration(now - sequence->congested_since)));
  }
  return std::nullopt;
}

bool Engine::Impl::EndOverdue() {
  const absl::Duration now = clock_->Now();
  std::vector<std::pair<Sequence*, absl::Status>> overdue;
  const auto check = [&](const auto& sequences) {
    for (const auto& sequence : sequences) {
      if (std::optional<absl::Status> status = Overdue(now, sequence.get())) {
        overdue.emplace_back(sequence.get(), *std::move(status));
      }
    }
  };
  check(running_);
  check(waiting_);
  for (const auto& [sequence, status] : overdue) Fail(sequence, status);
  return !overdue.empty();
}

bool Engine::Impl::RunOnce() {
  TANDEM_CHECK(!in_round_);
  in_round_ = true;
  RefreshTarget();
  RefreshDraft();
  bool did_something = EndOverdue();
  if (!target_.facts) {
    did_something |= EndWithoutTarget();
  } else {
    Admit();
    Round round = Schedule();
    if (!round.entries.empty()) {
      RunRound(&round);
      did_something = true;
    } else {
      did_something |= SendReleases();
    }
  }
  in_round_ = false;
  for (const auto& [id, reason] : std::exchange(cancelled_, {})) Cancel(id, reason);
  ReportGauges();
  return did_something;
}

void Engine::Impl::ReportGauges() {
  const int64_t num_evicted = pages_.num_evicted();
  if (num_evicted > num_evicted_) {
    observer_->OnPressure(PressureRung::kEvictCached,
                          static_cast<int32_t>(num_evicted - num_evicted_));
    num_evicted_ = num_evicted;
  }
  observer_->OnGauges({.num_running = num_running(),
                       .num_waiting = num_waiting(),
                       .pages_total = pages_.num_pages(),
                       .pages_free = pages_.num_free(),
                       .pages_target = pages_.num_used(Role::kTarget),
                       .pages_draft = pages_.num_used(Role::kDraft),
                       .pages_idle = pages_.num_idle(),
                       .pages_pinned = pages_.num_pinned(),
                       .swap_pages = swap_.num_places(),
                       .swap_pages_free = swap_.num_free(),
                       .target_up = target_.facts.has_value(),
                       .draft_up = draft_.facts.has_value(),
                       .mean_draft_length = mean_draft_length_});
}

}  // namespace tandem::gateway
