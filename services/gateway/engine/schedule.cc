// What runs in the next round: who is admitted, who gets tokens and pages, who drafts.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/gateway/engine/engine_impl.h"

namespace tandem::gateway {

// Waiting requests are admitted in the order of the queue; one that does not fit yet holds up
// those behind it, so that a large one is not passed over for ever. Sequences whose clients do not
// read make room for them.
void Engine::Impl::Admit() {
  while (Sequence* sequence = waiting_.Next(clock_->Now())) {
    if (num_running() >= options_.max_running && !YieldCongested()) break;
    if (!PrepareAdmission(sequence)) continue;
    if (!FitsBesideOthers(*sequence)) {
      if (YieldCongested()) continue;
      break;
    }
    std::unique_ptr<Sequence> admitted = waiting_.Admit(sequence, clock_->Now());
    sequence->is_running = true;
    for (const Role role : {Role::kTarget, Role::kDraft}) AttachCached(role, sequence);
    SwapIn(sequence);
    if (!sequence->is_started) {
      sequence->info.cached_tokens = sequence->role(Role::kTarget).kv_length;
      waiting_.Charge(sequence->request.client, sequence->num_missing(Role::kTarget), 0);
    }
    const auto place = std::upper_bound(
        running_.begin(), running_.end(), sequence,
        [](const Sequence* s, const auto& other) { return s->ranks_before(*other); });
    running_.insert(place, std::move(admitted));
  }
  has_preempted_ = waiting_.HasPreempted();
}

// The last of the running sequences whose clients do not read waits until its client does. Its full
// pages stay in the prefix cache until others need them.
bool Engine::Impl::YieldCongested() {
  const auto last = std::find_if(running_.rbegin(), running_.rend(),
                                 [](const auto& sequence) { return sequence->is_congested(); });
  if (last == running_.rend()) return false;
  BackToQueue(last->get());
  return true;
}

// Limits may have been unknown, or others, when it was submitted. False when it had to end.
bool Engine::Impl::PrepareAdmission(Sequence* sequence) {
  if (sequence->is_started) {
    if (sequence->length() <= pages_.Capacity(Role::kTarget)) return true;
    Fail(sequence, absl::ResourceExhaustedError(absl::StrCat(
                       "the sequence has ", sequence->length(), " tokens, the new page pool ",
                       "holds ", pages_.Capacity(Role::kTarget))));
    return false;
  }
  const absl::StatusOr<SequenceLimits> limits =
      LimitsFor(sequence->num_prompt_tokens, sequence->request.stopping.max_tokens);
  if (!limits.ok()) {
    Fail(sequence, limits.status());
    return false;
  }
  sequence->limits = *limits;
  sequence->output = OutputAssembler(tokenizer_, sequence->request.stopping, limits->max_tokens,
                                     limits->reason_at_max_tokens);
  return true;
}

// Begins it with what others have left in the prefix cache, or it itself when its pages were
// taken. Not after a failure: what was refused once is made anew.
void Engine::Impl::AttachCached(Role role, Sequence* sequence) {
  const bool is_draft = role == Role::kDraft;
  if (is_draft && (!draft_.facts || !sequence->may_use_draft())) return;
  if ((is_draft ? sequence->num_draft_failures : sequence->num_replays) > 0) return;
  const int32_t keep_free = is_draft ? PagesNotForDraft(*sequence) : 0;
  const int32_t num_cached = pages_.Attach(role, keep_free, sequence);
  observer_->OnPrefixLookup(role, sequence->length(), num_cached);
}

// Whether there are pages for all its tokens, next to what the running ones still lack for
// theirs. Pages of drafts count as free.
bool Engine::Impl::FitsBesideOthers(const Sequence& sequence) const {
  if (running_.empty()) return true;
  int32_t available = pages_.num_available() + pages_.num_used(Role::kDraft);
  for (const auto& other : running_) {
    const int32_t held = static_cast<int32_t>(other->role(Role::kTarget).pages.size());
    available -= std::max(0, pages_.PagesFor(Role::kTarget, other->length() + 1) - held);
  }
  return pages_.PagesFor(Role::kTarget, sequence.length() + 1) -
             pages_.NumPagesHeldByOthers(Role::kTarget, sequence) <=
         available;
}

// Running sequences whose client reads. One that was there each time the target died runs
// alone, so that only the cause is blamed.
std::vector<Sequence*> Engine::Impl::ChooseActive() {
  std::vector<Sequence*> active;
  std::vector<Sequence*> suspects;
  for (const auto& sequence : running_) {
    if (sequence->is_congested()) continue;
    active.push_back(sequence.get());
    if (sequence->num_target_losses >= kMaxTargetLosses - 1) suspects.push_back(sequence.get());
  }
  const size_t max_rows = std::max(1, target_.facts->max_logits_rows);
  if (!suspects.empty()) return {suspects[next_in_turn_++ % suspects.size()]};
  if (active.size() > max_rows) {
    std::rotate(active.begin(), active.begin() + next_in_turn_ % active.size(), active.end());
    next_in_turn_ += max_rows;
    active.resize(max_rows);
    std::sort(active.begin(), active.end(),
              [](const Sequence* a, const Sequence* b) { return a->ranks_before(*b); });
  }
  return active;
}

// Prompt tokens for the next step: as many as fit when nobody waits for a token.
int32_t Engine::Impl::PrefillBudget(int32_t num_decoding, int32_t num_prefilling) const {
  const int32_t most = std::max(1, target_.facts->max_step_tokens - num_decoding);
  if (num_decoding == 0) return most;
  const StepCosts& costs = planner_.costs();
  const double plain_seconds = costs.knows_verify() ? costs.Verify(num_decoding) : 0.0;
  const int32_t budget = pacer_.Budget(plain_seconds, num_prefilling, num_decoding);
  const int32_t free = costs.knows_verify() ? costs.FreeRows(num_decoding + budget) : 0;
  return std::min(most, budget + free);
}

// Prompt tokens of each in the next step. Another comes first each time: a budget that is
// too small to be shared goes round.
std::vector<int32_t> Engine::Impl::SharesOf(const std::vector<Sequence*>& active) {
  std::vector<size_t> prefilling;
  for (size_t i = 0; i < active.size(); ++i) {
    if (!active[i]->is_decoding()) prefilling.push_back(i);
  }
  std::vector<int32_t> shares(active.size(), 0);
  if (prefilling.empty()) return shares;
  std::rotate(prefilling.begin(), prefilling.begin() + next_prefill_++ % prefilling.size(),
              prefilling.end());
  std::vector<int32_t> num_missing;
  for (const size_t i : prefilling) num_missing.push_back(active[i]->num_missing(Role::kTarget));
  const auto num_decoding = static_cast<int32_t>(active.size() - prefilling.size());
  const std::vector<int32_t> in_turn = SharePrefill(
      num_missing, PrefillBudget(num_decoding, static_cast<int32_t>(prefilling.size())));
  for (size_t i = 0; i < prefilling.size(); ++i) shares[prefilling[i]] = in_turn[i];
  return shares;
}

Engine::Impl::Round Engine::Impl::Schedule() {
  Round round;
  const std::vector<Sequence*> active = ChooseActive();
  const std::vector<int32_t> shares = SharesOf(active);
  round.num_prompts = static_cast<int32_t>(std::count_if(
      active.begin(), active.end(), [](const Sequence* one) { return !one->is_decoding(); }));
  for (size_t i = 0; i < active.size(); ++i) {
    Sequence* sequence = active[i];
    Entry entry{.sequence = sequence, .plan = {}, .draft_token_ids = {}};
    entry.is_planned = sequence->is_decoding();
    entry.num_tokens = entry.is_planned ? 1 : shares[i];
    const int32_t end = sequence->role(Role::kTarget).kv_length + entry.num_tokens;
    entry.samples = end == sequence->length();
    // Older ones come first and take from younger ones, never the other way round.
    if (entry.num_tokens == 0 || !sequence->is_running || !MakeRoom(end, sequence)) continue;
    if (!entry.is_planned) round.num_prefill_tokens += entry.num_tokens;
    round.entries.push_back(std::move(entry));
  }
  if (round.entries.empty()) return round;
  if (draft_.facts) step_prices_ = planner_.PricesOf(std::max(1, num_running()));
  TakePrepared(&round);
  PlanDrafts(&round);
  MoveAhead(&round);
  ScheduleProposals(&round);
  PutBackFromAhead(&round);
  ScheduleCatchUp(active, &round);
  return round;
}

// Target pages for `num_positions`: from the free ones, else from drafts, else from the
// youngest sequence. False when the sequence itself had to go.
bool Engine::Impl::MakeRoom(int32_t num_positions, Sequence* sequence) {
  while (!GrowOverDrafts(num_positions, sequence)) {
    if (running_.size() == 1) {
      observer_->OnPressure(PressureRung::kRefuse, 1);
      Fail(sequence, absl::ResourceExhaustedError(
                         absl::StrCat(num_positions, " positions do not fit the page pool of ",
                                      pages_.num_pages(), " pages")));
      return false;
    }
    if (YieldCongested()) continue;
    Sequence* youngest = running_.back().get();
    Preempt(youngest);
    if (youngest == sequence) return false;
  }
  return true;
}

// From the free ones, else from drafts.
bool Engine::Impl::GrowOverDrafts(int32_t num_positions, Sequence* sequence) {
  while (!pages_.Grow(Role::kTarget, num_positions, /*keep_free=*/0, sequence)) {
    if (!DropYoungestDraftPages()) return false;
  }
  return true;
}

bool Engine::Impl::DropYoungestDraftPages() {
  for (auto i = running_.rbegin(); i != running_.rend(); ++i) {
    if ((*i)->role(Role::kDraft).pages.empty()) continue;
    DropKv(Role::kDraft, i->get());
    (*i)->lost_draft_pages = true;
    observer_->OnPressure(PressureRung::kDropDraftPages, 1);
    return true;
  }
  return false;
}

void Engine::Impl::Preempt(Sequence* sequence) {
  ++sequence->info.num_preemptions;
  observer_->OnPressure(PressureRung::kPreempt, 1);
  has_preempted_ = true;
  SwapOut(sequence);
  BackToQueue(sequence);
}

// Its tokens are kept and run again when its turn comes: the output does not change.
void Engine::Impl::BackToQueue(Sequence* sequence) {
  DropKv(Role::kTarget, sequence);
  DropKv(Role::kDraft, sequence);
  sequence->is_running = false;
  const auto place = std::find_if(running_.begin(), running_.end(),
                                  [&](const auto& other) { return other.get() == sequence; });
  waiting_.Push(std::move(*place), clock_->Now());
  running_.erase(place);
}

void Engine::Impl::PlanDrafts(Round* round) {
  std::vector<DraftRequest> requests;
  int32_t num_samples = 0;
  for (const Entry& entry : round->entries) {
    if (entry.is_planned && !entry.is_prepared) {
      requests.push_back(DraftRequestOf(entry.sequence));
    } else if (!entry.is_planned && entry.samples) {
      ++num_samples;
    }
  }
  const std::vector<DraftPlan> planned = planner_.Plan(requests, round->num_prefill_tokens);
  std::vector<DraftPlan> plans;  // of all decodes
  size_t next = 0;
  for (const Entry& entry : round->entries) {
    if (entry.is_planned) plans.push_back(entry.is_prepared ? entry.plan : planned[next++]);
  }
  const int32_t max_rows = std::min(target_.facts->max_logits_rows - num_samples,
                                    target_.facts->max_step_tokens - round->num_prefill_tokens);
  TrimDrafts(std::max(max_rows, static_cast<int32_t>(plans.size())), &plans);
  next = 0;
  for (Entry& entry : round->entries) {
    if (!entry.is_planned) continue;
    entry.plan = plans[next++];
    // Drafts are not worth anybody's pages: what is free, or fewer of them.
    while (entry.plan.num_draft_tokens > 0 &&
           !pages_.Grow(Role::kTarget, entry.sequence->length() + entry.plan.num_draft_tokens,
                        /*keep_free=*/0, entry.sequence)) {
      observer_->OnPressure(PressureRung::kShortenDrafts, 1);
      if (--entry.plan.num_draft_tokens == 0) entry.plan = {.reason = bypass::kNoPages};
    }
    if (entry.is_prepared) {
      entry.draft_token_ids.resize(static_cast<size_t>(entry.plan.num_draft_tokens));
    } else if (entry.plan.source == DraftSource::kLookup) {
      entry.draft_token_ids =
          entry.sequence->lookup.Draft(entry.plan.match, entry.plan.num_draft_tokens);
    }
  }
}

int32_t Engine::Impl::MaxDraftTokens(const Sequence& sequence) const {
  const SpeculationParams& params = sequence.request.speculation;
  if (params.mode == SpeculationMode::kOff) return 0;
  // A step gives one token more than are accepted.
  const int32_t most =
      std::min({sequence.num_remaining() - 1, options_.max_draft_length, kMaxDraftLength});
  return std::max(0, params.draft_length > 0 ? std::min(most, params.draft_length) : most);
}

DraftRequest Engine::Impl::DraftRequestOf(Sequence* sequence) {
  const SpeculationParams& params = sequence->request.speculation;
  DraftRequest request{.state = &sequence->draft_state};
  request.max_tokens = MaxDraftTokens(*sequence);
  request.allow_draft = sequence->may_use_draft() &&
                        (draft_link_ != nullptr || params.mode == SpeculationMode::kDraft);
  request.allow_lookup = sequence->may_use_lookup();
  if (params.mode == SpeculationMode::kDraft || params.mode == SpeculationMode::kLookup) {
    request.min_tokens =
        params.draft_length > 0 ? request.max_tokens : std::min(1, request.max_tokens);
  }
  if (request.max_tokens == 0) return request;
  if (request.allow_lookup) request.match = sequence->lookup.Find();
  if (request.allow_draft) request.draft_unavailable = PrepareForDraft(sequence);
  request.num_missing_tokens = std::max(0, sequence->num_missing(Role::kDraft) - 2);
  request.greedy = sequence->request.sampling.temperature <= 0.0f;
  return request;
}

}  // namespace tandem::gateway
