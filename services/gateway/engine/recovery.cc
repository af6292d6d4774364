// Workers come and go: what is forgotten, what is kept, who waits and for how long.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/gateway/engine/engine_impl.h"

namespace tandem::gateway {
namespace {

constexpr int32_t kMaxRefusals = 3;

constexpr absl::Duration kFirstBackoff = absl::Milliseconds(100);
constexpr absl::Duration kLastBackoff = absl::Seconds(5);

}  // namespace

// Its pages are free again, and its KV forgotten, here now and by the worker with its next
// step. Not for a sequence of a step that is being made or in flight.
void Engine::Impl::DropKv(Role role, Sequence* sequence) {
  if (sequence->role(role).is_open) worker(role).release.Add(sequence->id);
  pages_.Drop(role, sequence);
  if (role != Role::kDraft) return;
  pages_.ReturnSlot(sequence);
  sequence->prepared.reset();
}

void Engine::Impl::Connect(const WorkerFacts& facts, Worker* to) {
  if (to->incarnation != facts.incarnation) to->release.Clear();
  to->incarnation = facts.incarnation;
  to->facts = facts;
}

void Engine::Impl::RefreshTarget() {
  const absl::StatusOr<WorkerFacts> facts = target_link_->Facts();
  const absl::StatusOr<PoolFacts> pool = fence_->Facts();
  target_.refusal = absl::IsFailedPrecondition(facts.status()) ? facts.status() : absl::OkStatus();
  if (!facts.ok() || !pool.ok()) {
    if (target_.facts) LoseTarget(facts.ok() ? pool.status() : facts.status());
    return;
  }
  if (target_.facts &&
      (target_.facts->incarnation != facts->incarnation || pages_.epoch() != pool->epoch)) {
    LoseTarget(absl::UnavailableError("the target was restarted"));
  }
  if (!pages_.has_pool() || pages_.epoch() != pool->epoch) {
    // The draft's pages were in the old pool too.
    ForgetAll(Role::kDraft);
    pages_.Reset(*pool);
  }
  pages_.SetPositionsPerPage(Role::kTarget, facts->positions_per_page);
  if (!target_.facts) {
    const bool has_swap = facts->incarnation != incarnation_without_swap_;
    swap_.Reset(has_swap ? facts->num_swap_pages : 0);
  }
  Connect(*facts, &target_);
}

void Engine::Impl::RefreshDraft() {
  if (draft_link_ == nullptr) return;
  const absl::StatusOr<WorkerFacts> facts = draft_link_->Facts();
  if (!facts.ok()) {
    if (draft_.facts) LoseDraft(facts.status());
    return;
  }
  if (draft_.facts && draft_.facts->incarnation != facts->incarnation) {
    LoseDraft(absl::UnavailableError("the draft was restarted"));
    draft_.retry_at = absl::ZeroDuration();
  }
  if (draft_.facts || clock_->Now() < draft_.retry_at || !pages_.has_pool()) return;
  pages_.SetPositionsPerPage(Role::kDraft, facts->positions_per_page);
  Connect(*facts, &draft_);
}

// All sequences keep their tokens and wait; the next steps replay them from the start.
void Engine::Impl::LoseTarget(const absl::Status& status) {
  observer_->OnWorkerLost(Role::kTarget, status);
  target_.facts.reset();
  target_.down_since = clock_->Now();
  ForgetAll(Role::kTarget);
  ForgetSwapped();
}

// The worker may be the same as before, which only refused a step: it is told.
void Engine::Impl::ForgetAll(Role role) {
  for (const auto& sequence : running_) DropKv(role, sequence.get());
  pages_.ForgetCached(role);
}

// Nobody waits for a draft: sequences go on without, and it is filled again from their
// tokens when it is back. A draft whose link says it is up while its steps fail is left
// alone for a while, longer each time.
void Engine::Impl::LoseDraft(const absl::Status& status) {
  observer_->OnWorkerLost(Role::kDraft, status);
  draft_.facts.reset();
  draft_.down_since = clock_->Now();
  draft_.backoff = std::clamp(2 * draft_.backoff, kFirstBackoff, kLastBackoff);
  draft_.retry_at = clock_->Now() + draft_.backoff;
  ForgetAll(Role::kDraft);
}

// The target is down: requests that have waited for it long enough end, and all of them
// when another model is in its place.
bool Engine::Impl::EndWithoutTarget() {
  const absl::Duration now = clock_->Now();
  std::vector<Sequence*> ended;
  const auto check = [&](const auto& sequences) {
    for (const auto& sequence : sequences) {
      const absl::Duration since = std::max(target_.down_since, sequence->request.arrival);
      if (!target_.refusal.ok() || now - since >= options_.target_wait)
        ended.push_back(sequence.get());
    }
  };
  check(running_);
  check(waiting_);
  const absl::Status status =
      !target_.refusal.ok()
          ? target_.refusal
          : absl::UnavailableError(absl::StrCat("the target has been down for ",
                                                absl::FormatDuration(now - target_.down_since),
                                                ": try again later"));
  for (Sequence* sequence : ended) Fail(sequence, status);
  return !ended.empty();
}

void Engine::Impl::BlameForLoss(const std::vector<Entry>& entries, const absl::Status& status) {
  const bool is_refusal = !absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status);
  target_.num_refusals = is_refusal ? target_.num_refusals + 1 : 0;
  for (const Entry& entry : entries) {
    Sequence* sequence = entry.sequence;
    ++sequence->num_target_losses;
    if (sequence->num_target_losses >= kMaxTargetLosses) {
      Fail(sequence, absl::UnavailableError(absl::StrCat(
                         "the target was lost ", sequence->num_target_losses,
                         " times while it ran this request; last: ", status.message())));
    } else if (target_.num_refusals >= kMaxRefusals) {
      Fail(sequence, status);
    }
  }
}

}  // namespace tandem::gateway
