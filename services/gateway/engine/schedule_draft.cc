// What the draft is asked for: proposals now, and filling its cache for later ones.
#include <algorithm>

#include "services/gateway/engine/engine_impl.h"

namespace tandem::gateway {
namespace {

// A draft that lacks more tokens than this is filled in chunks first, while the sequence
// goes on without it: the others of the step should not wait.
constexpr int32_t kMaxInlineTokens = 32;

// A draft that refuses a sequence this often is not asked again.
constexpr int32_t kMaxDraftFailures = 3;

bool MayTryDraft(const Sequence& sequence) {
  return sequence.may_use_draft() && sequence.num_draft_failures < kMaxDraftFailures;
}

}  // namespace

// Pages that the draft leaves alone: one for each sequence to go on with, and half of all
// before it fills a cache again that it had to give up, which would only go to and fro.
int32_t Engine::Impl::PagesNotForDraft(const Sequence& sequence) const {
  const bool is_refill = sequence.lost_draft_pages && sequence.role(Role::kDraft).pages.empty();
  return std::max(num_running(), is_refill ? pages_.num_pages() / 2 : 0);
}

// Gives the sequence what it needs to be drafted for in this round: what is cached of it, a slot,
// pages. Why that cannot be, empty when it can.
std::string_view Engine::Impl::PrepareForDraft(Sequence* sequence) {
  if (!draft_.facts) return draft_link_ == nullptr ? bypass::kNoDraftModel : bypass::kDraftDown;
  if (!MayTryDraft(*sequence)) return bypass::kDraftFailed;
  // Pages bring more tokens by letting it run, and what is kept spares it a second prefill.
  if (has_preempted_) return bypass::kNoPages;
  const int32_t length = sequence->length();
  if (length + MaxDraftTokens(*sequence) > draft_.facts->context_length) {
    return bypass::kDraftContext;
  }
  const int32_t keep_free = PagesNotForDraft(*sequence);
  const RoleState& state = sequence->role(Role::kDraft);
  if (state.pages.empty() && state.kv_length == 0) AttachCached(Role::kDraft, sequence);
  if (sequence->num_missing(Role::kDraft) > kMaxInlineTokens) {
    return IsWorthFilling(*sequence) ? bypass::kCatchingUp : bypass::kNotWorthIt;
  }
  if (sequence->needs_draft_probs() && !pages_.TakeSlot(sequence)) return bypass::kNoSlot;
  if (!pages_.Grow(Role::kDraft, length, keep_free, sequence)) {
    return bypass::kNoPages;
  }
  return {};
}

bool Engine::Impl::IsWorthFilling(const Sequence& sequence) const {
  return sequence.request.speculation.mode == SpeculationMode::kDraft ||
         planner_.WorthCatchingUp(sequence.draft_state, sequence.num_missing(Role::kDraft),
                                  sequence.num_remaining(), step_prices_);
}

// Appends the sequence to the propose step if it gets pages for it.
bool Engine::Impl::AddToPropose(Sequence* sequence, int32_t num_tokens, const DraftPlan& plan,
                                Round* round) {
  RoleState& state = sequence->role(Role::kDraft);
  const int32_t start = std::min(state.kv_length, sequence->length() - 1);
  // The last draft token is not run.
  const int32_t end = start + num_tokens + std::max(0, plan.num_draft_tokens - 1);
  if (!pages_.Grow(Role::kDraft, end, PagesNotForDraft(*sequence), sequence)) return false;
  SequenceStep step{.sequence = sequence->id, .start_position = start};
  const auto first = sequence->tokens.begin() + start;
  step.token_ids.assign(first, first + num_tokens);
  step.num_draft_tokens = plan.num_draft_tokens;
  step.min_confidence = plan.min_confidence;
  if (plan.num_draft_tokens > 0 && sequence->needs_draft_probs()) {
    step.draft_probs_slot = sequence->draft_probs_slot;
  }
  if (!state.is_open) {
    round->propose.open.push_back(Open(Role::kDraft, sequence));
  }
  pages_.FillPages(Role::kDraft, sequence, &step);
  round->propose.sequences.push_back(std::move(step));
  round->proposing.push_back(sequence);
  return true;
}

void Engine::Impl::ScheduleProposals(Round* round) {
  const auto schedule = [&](Entry& entry) {
    if (entry.plan.source != DraftSource::kDraft || entry.is_prepared) return;
    Sequence* sequence = entry.sequence;
    const int32_t start = std::min(sequence->role(Role::kDraft).kv_length, sequence->length() - 1);
    if (AddToPropose(sequence, sequence->length() - start, entry.plan, round)) {
      round->has_proposals = true;
    } else {
      entry.plan = {.reason = bypass::kNoPages};
    }
  };
  for (Entry& entry : round->entries) schedule(entry);
  for (Entry& entry : round->ahead) schedule(entry);
}

// Tokens that the draft may read in this round, of `num_missing`. Who waits for a token waits for
// the draft as well, or shares the machine with it: so it gets a share of the time of steps, saved
// up until it is worth a step of the draft.
int32_t Engine::Impl::CatchUpBudget(const Round& round, int32_t num_missing) {
  const StepCosts& costs = planner_.costs();
  const auto num_decoding =
      static_cast<int32_t>(std::count_if(round.entries.begin(), round.entries.end(),
                                         [](const Entry& entry) { return entry.is_planned; }));
  const int32_t most = std::min(options_.prefill_chunk_tokens, num_missing);
  const double fixed = costs.DraftPrefill(0);
  const double token = costs.DraftPrefillToken();
  if (num_decoding == 0 || !costs.knows_verify() || fixed + token <= 0.0) return most;
  constexpr double kShare = 0.2;  // of a step
  catch_up_seconds_ =
      std::min(catch_up_seconds_ + kShare * costs.Verify(num_decoding + round.num_prefill_tokens),
               costs.DraftPrefill(options_.prefill_chunk_tokens));
  // A few tokens take as long as many where most of the time is that of any step.
  constexpr double kLeastTokens = 4.0;
  double affordable = catch_up_seconds_ >= fixed ? most : 0.0;
  double least = most;
  if (token > 0.0) {
    affordable = std::min(affordable, (catch_up_seconds_ - fixed) / token);
    least = std::min(least, std::max(kLeastTokens, fixed / token));
  }
  return affordable < least ? 0 : static_cast<int32_t>(affordable);
}

// Running sequences that the draft is to read more of.
std::vector<Sequence*> Engine::Impl::ChooseToFill(const std::vector<Sequence*>& active) const {
  std::vector<Sequence*> chosen;
  for (Sequence* sequence : active) {
    const bool may_draft = sequence->is_running && MayTryDraft(*sequence) &&
                           sequence->length() + 1 < draft_.facts->context_length &&
                           sequence->num_remaining() > 1;
    if (may_draft && sequence->num_missing(Role::kDraft) > kMaxInlineTokens &&
        IsWorthFilling(*sequence)) {
      chosen.push_back(sequence);
    }
  }
  return chosen;
}

// The draft reads prompts while the target does, and what was made without it.
void Engine::Impl::ScheduleCatchUp(const std::vector<Sequence*>& active, Round* round) {
  if (!draft_.facts || has_preempted_) return;
  const std::vector<Sequence*> to_fill = ChooseToFill(active);
  if (to_fill.empty()) return;
  int32_t num_missing = 0;
  // The last token comes with the proposal.
  for (Sequence* sequence : to_fill) num_missing += sequence->num_missing(Role::kDraft) - 1;
  int32_t room = draft_.facts->max_step_tokens;
  for (const SequenceStep& step : round->propose.sequences) {
    room -= static_cast<int32_t>(step.token_ids.size()) + step.num_draft_tokens;
  }
  const int32_t budget = std::min(CatchUpBudget(*round, num_missing), room);
  int32_t left = budget;
  for (Sequence* sequence : to_fill) {
    const int32_t chunk = std::min(sequence->num_missing(Role::kDraft) - 1, left);
    if (chunk > 0 && AddToPropose(sequence, chunk, DraftPlan(), round)) left -= chunk;
  }
  if (left < budget) catch_up_seconds_ -= planner_.costs().DraftPrefill(budget - left);
}

}  // namespace tandem::gateway
