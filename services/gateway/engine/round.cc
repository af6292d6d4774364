// One round: ask the draft, then the target.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/gateway/engine/engine_impl.h"

namespace tandem::gateway {
namespace {

// A draft that hangs must not hold up the target for as long as a target may take.
constexpr absl::Duration kMaxDraftTimeout = absl::Seconds(10);
// Ids to release are told with the next step, or in one of their own when there are many.
constexpr size_t kMaxReleases = 64;
// Before a target that refused such a step gets another.
constexpr absl::Duration kReleaseRetry = absl::Seconds(1);
constexpr float kBan = -100.0f;  // as a logit_bias

}  // namespace

void Engine::Impl::SendPropose(Round* round) {
  round->propose.release = draft_.release.Tell();
  round->propose_sent = clock_->Now();
  draft_link_->Send(round->propose);
}

// What a step says is so once it was answered, and not when it was refused.
void Engine::Impl::OnAnswered(Role role, const std::vector<Sequence*>& sequences) {
  worker(role).release.OnAnswered();
  for (Sequence* sequence : sequences) sequence->role(role).is_open = true;
}

void Engine::Impl::AwaitPropose(Round* round) {
  const absl::Duration asked = clock_->Now();
  const absl::StatusOr<ProposeStepResult> result =
      draft_link_->Await(std::min(options_.step_timeout, kMaxDraftTimeout));
  const absl::Duration now = clock_->Now();
  if (result.ok()) OnAnswered(Role::kDraft, round->proposing);
  if (!result.ok() || result->results.size() != round->propose.sequences.size()) {
    LoseDraft(result.ok() ? absl::InternalError(absl::StrCat(
                                result->results.size(), " results for ",
                                round->propose.sequences.size(), " sequences of the draft"))
                          : result.status());
    for (Entry& entry : round->entries) {
      entry.num_drafted_kv = 0;
      if (entry.plan.source != DraftSource::kDraft || entry.is_prepared) continue;
      entry.plan = {.reason = bypass::kDraftDown};
    }
    round->ahead.clear();
    return;
  }
  draft_.backoff = absl::ZeroDuration();
  TakeProposals(*result, round);
  ObservePropose(*round, *result, now - round->propose_sent);
  ChargeForDraft(*round, *result, absl::ToDoubleSeconds(now - asked));
}

void Engine::Impl::ChargeForDraft(const Round& round, const ProposeStepResult& result,
                                  double seconds) {
  std::vector<DraftPlanner::DraftWork> work;
  for (size_t i = 0; i < round.propose.sequences.size(); ++i) {
    const SequenceStep& step = round.propose.sequences[i];
    if (step.num_draft_tokens == 0) continue;
    const size_t num_made = result.results[i].draft_token_ids.size();
    work.push_back({.state = &round.proposing[i]->draft_state,
                    .num_tokens = static_cast<int32_t>(step.token_ids.size() + num_made)});
  }
  const auto num_decoding = std::count_if(round.entries.begin(), round.entries.end(),
                                          [](const Entry& entry) { return entry.is_planned; });
  planner_.RecordDraftTime(work, static_cast<int32_t>(num_decoding), seconds);
}

void Engine::Impl::ObservePropose(const Round& round, const ProposeStepResult& result,
                                  absl::Duration round_trip) {
  int32_t num_tokens = 0;
  int32_t num_drafts = 0;
  int32_t longest = 0;
  int32_t num_drafting = 0;
  for (size_t i = 0; i < round.propose.sequences.size(); ++i) {
    const SequenceStep& step = round.propose.sequences[i];
    const int32_t num_made = static_cast<int32_t>(result.results[i].draft_token_ids.size());
    num_tokens += static_cast<int32_t>(step.token_ids.size());
    num_drafts += num_made;
    num_drafting += step.num_draft_tokens > 0 ? 1 : 0;
    // One that stops early has made a token that it threw away.
    longest = std::max(longest, std::min(step.num_draft_tokens, num_made + 1));
  }
  observer_->OnStep({.role = Role::kDraft,
                     .num_sequences = static_cast<int32_t>(round.propose.sequences.size()),
                     .num_rows = num_drafts,
                     .num_prefill_tokens = num_tokens,
                     .round_trip = round_trip,
                     .compute = result.prefill + result.draft,
                     .sample = absl::ZeroDuration()});
  constexpr int32_t kFewTokens = 3;  // a sequence has one or two after a verify
  constexpr int32_t kManyTokens = 32;
  // Beside a verify it takes longer.
  if (round.waits_for_draft && longest > 0 && num_tokens <= kFewTokens * num_drafting &&
      round_trip > absl::ZeroDuration()) {
    StepCosts& costs = planner_.costs();
    const double seconds = absl::ToDoubleSeconds(round_trip);
    if (round.is_measuring()) {
      measuring_turns_.Observe(costs.knows_propose() ? costs.Propose(num_drafting, longest) : 0.0,
                               seconds);
    }
    costs.ObservePropose(num_drafting, longest, seconds);
  }
  if (num_tokens >= kManyTokens && result.prefill > absl::ZeroDuration()) {
    planner_.costs().ObserveDraftPrefill(num_tokens, absl::ToDoubleSeconds(result.prefill));
  }
}

void Engine::Impl::TakeProposals(const ProposeStepResult& result, Round* round) {
  for (size_t i = 0; i < round->proposing.size(); ++i) {
    Sequence* sequence = round->proposing[i];
    const SequenceStep& step = round->propose.sequences[i];
    const ProposeResult& proposed = result.results[i];
    if (!proposed.status.ok()) {
      RefusedByDraft(sequence);
      continue;
    }
    sequence->role(Role::kDraft).kv_length =
        step.start_position + static_cast<int32_t>(step.token_ids.size());
  }
  for (Entry& entry : round->entries) TakeProposal(*round, result, &entry);
  for (Entry& entry : round->ahead) TakeProposal(*round, result, &entry);
}

void Engine::Impl::TakeProposal(const Round& round, const ProposeStepResult& result,
                                Entry* entry) const {
  if (entry->plan.source != DraftSource::kDraft || entry->is_prepared) return;
  const auto place = std::find(round.proposing.begin(), round.proposing.end(), entry->sequence);
  const ProposeResult& proposed = result.results[place - round.proposing.begin()];
  const int32_t num_made = static_cast<int32_t>(proposed.draft_token_ids.size());
  if (!proposed.status.ok() || num_made > entry->plan.num_draft_tokens) {
    entry->plan = {.reason = bypass::kDraftFailed};
    return;
  }
  // Under REJECTION what was drawn may not be judged afterwards: there Open bans all those ids.
  const auto& never_drafted = options_.never_drafted;
  const bool may_cut = !entry->sequence->needs_draft_probs();
  for (const int32_t id : proposed.draft_token_ids) {
    if (id < 0 || id >= target_.facts->vocab_size) break;
    if (may_cut && std::binary_search(never_drafted.begin(), never_drafted.end(), id)) break;
    entry->draft_token_ids.push_back(id);
  }
  // All but the last were run.
  entry->num_drafted_kv = std::max(0, num_made - 1);
}

void Engine::Impl::RefusedByDraft(Sequence* sequence) {
  ++sequence->num_draft_failures;
  DropKv(Role::kDraft, sequence);  // opened anew the next time
}

OpenSequence Engine::Impl::Open(Role role, Sequence* sequence) {
  const RoleState& state = sequence->role(role);
  const auto first = sequence->tokens.begin();
  OpenSequence open = {.sequence = sequence->id,
                       .sampling = sequence->request.sampling,
                       .cached_token_ids = {first, first + state.kv_length},
                       .traceparent = sequence->request.traceparent};
  if (role == Role::kDraft && sequence->needs_draft_probs()) {
    for (const int32_t id : options_.never_drafted) {
      open.sampling.logit_bias.emplace_back(id, kBan);
    }
    // Ids that only the draft has.
    int32_t& num_used = open.sampling.used_vocab_size;
    const int32_t num_known = target_.facts->vocab_size;
    num_used = num_used > 0 ? std::min(num_used, num_known) : num_known;
  }
  return open;
}

WorkerStep Engine::Impl::VerifyStepOf(const Round& round) {
  WorkerStep verify{.copies = swap_.TakeCopies()};
  for (const Entry& entry : round.entries) {
    Sequence* sequence = entry.sequence;
    RoleState& state = sequence->role(Role::kTarget);
    if (!state.is_open) {
      verify.open.push_back(Open(Role::kTarget, sequence));
    }
    SequenceStep step{.sequence = sequence->id, .start_position = state.kv_length};
    const auto first = sequence->tokens.begin() + state.kv_length;
    step.token_ids.assign(first, first + entry.num_tokens);
    step.draft_token_ids = entry.draft_token_ids;
    step.sample = entry.samples;
    if (entry.plan.source == DraftSource::kDraft && !entry.draft_token_ids.empty() &&
        sequence->needs_draft_probs()) {
      step.draft_probs_slot = sequence->draft_probs_slot;
    }
    pages_.FillPages(Role::kTarget, sequence, &step);
    verify.sequences.push_back(std::move(step));
  }
  verify.release = target_.release.Tell();
  return verify;
}

void Engine::Impl::Start(Sequence* sequence) {
  sequence->is_started = true;
  sequence->first_step = clock_->Now();
  sequence->sink->OnStarted({.cached_tokens = sequence->info.cached_tokens,
                             .queue_time = sequence->first_step - sequence->request.arrival});
}

void Engine::Impl::RunRound(Round* round) {
  for (const Entry& entry : round->entries) {
    if (!entry.sequence->is_started) Start(entry.sequence);
  }
  const bool asks_draft =
      !round->proposing.empty() || (draft_.facts && draft_.release.size() >= kMaxReleases);
  const absl::Duration begin = clock_->Now();
  // A step with prompts would not tell what a row costs.
  round->waits_for_draft =
      round->has_proposals &&
      (round->ahead.empty() || (round->num_prefill_tokens == 0 && measuring_turns_.Take()));
  if (asks_draft) SendPropose(round);
  if (round->waits_for_draft) AwaitPropose(round);

  const absl::Duration sent = clock_->Now();
  target_link_->Send(VerifyStepOf(*round));
  for (const Entry& entry : round->entries) entry.sequence->lookup.Link();
  // Filling the draft's cache runs beside the verify: nobody waits for it. Nor for proposals
  // to those who are not in it.
  const bool is_overlapped = asks_draft && !round->waits_for_draft;
  absl::StatusOr<VerifyStepResult> result = target_link_->Await(options_.step_timeout);
  const absl::Duration round_trip = clock_->Now() - sent;
  if (is_overlapped) AwaitPropose(round);
  KeepPrepared(round);
  if (result.ok()) {
    std::vector<Sequence*> verified;
    for (const Entry& entry : round->entries) verified.push_back(entry.sequence);
    OnAnswered(Role::kTarget, verified);
  }
  if (result.ok() && result->results.size() != round->entries.size()) {
    result = absl::InternalError(absl::StrCat(result->results.size(), " results for ",
                                              round->entries.size(), " sequences of the target"));
  }
  if (!result.ok()) {
    const bool is_blamed = BlameSwap(result.status());
    LoseTarget(result.status());
    if (!is_blamed) BlameForLoss(round->entries, result.status());
    return;
  }
  swap_.Observe(result->copy);
  target_.num_refusals = 0;
  CheckVerifyResult(*round, &*result);
  ObserveRound(*round, *result, clock_->Now() - begin);
  Commit(round, *result, is_overlapped, round_trip - result->copy);
}

// A result that cannot be is that sequence's error; nothing of it is used.
void Engine::Impl::CheckVerifyResult(const Round& round, VerifyStepResult* result) const {
  for (size_t i = 0; i < round.entries.size(); ++i) {
    const Entry& entry = round.entries[i];
    VerifyResult& verified = result->results[i];
    if (!verified.status.ok() || !entry.samples) continue;
    const int32_t num_drafts = static_cast<int32_t>(entry.draft_token_ids.size());
    const bool possible =
        verified.num_accepted >= 0 && verified.num_accepted <= num_drafts &&
        verified.next_token_id >= 0 && verified.next_token_id < target_.facts->vocab_size &&
        (verified.logprobs.empty() ||
         static_cast<int32_t>(verified.logprobs.size()) == verified.num_accepted + 1);
    if (possible) continue;
    verified.status = absl::InternalError(
        absl::StrCat("the target answered ", verified.num_accepted, " of ", num_drafts,
                     " drafts accepted, next token ", verified.next_token_id, ", ",
                     verified.logprobs.size(), " log-probabilities: no such result can be"));
  }
}

// With nothing to run, the workers still hear of what is over.
bool Engine::Impl::SendReleases() {
  bool sent = false;
  const bool has_news = !target_.release.empty() || swap_.has_copies();
  if (has_news && clock_->Now() >= target_.retry_at) {
    WorkerStep step{.copies = swap_.TakeCopies()};
    step.release = target_.release.Tell();
    target_link_->Send(step);
    const absl::StatusOr<VerifyStepResult> result = target_link_->Await(options_.step_timeout);
    if (result.ok()) {
      OnAnswered(Role::kTarget, {});
      swap_.Observe(result->copy);
    } else {
      BlameSwap(result.status());
      target_.retry_at = clock_->Now() + kReleaseRetry;
      LoseTarget(result.status());
    }
    sent = true;
  }
  if (draft_.facts && !draft_.release.empty()) {
    Round round;
    SendPropose(&round);
    AwaitPropose(&round);
    sent = true;
  }
  return sent;
}

}  // namespace tandem::gateway
