// What came out of a round becomes part of the answers.
#include <algorithm>

#include "services/gateway/engine/engine_impl.h"

namespace tandem::gateway {
namespace {

constexpr int32_t kMaxReplays = 1;

const char* SourceName(DraftSource source) {
  switch (source) {
    case DraftSource::kDraft:
      return "draft";
    case DraftSource::kLookup:
      return "lookup";
    case DraftSource::kNone:
      break;
  }
  return "";
}

}  // namespace

void Engine::Impl::LearnCosts(const Round& round, int32_t num_rows, bool was_overlapped,
                              double seconds) {
  if (seconds <= 0.0) return;
  StepCosts& costs = planner_.costs();
  if (round.num_prefill_tokens == 0) {
    // Only steps of drafts and decodes, alone on the machine, say what a row costs.
    if (was_overlapped) return;
    if (round.is_measuring()) {
      measuring_turns_.Observe(costs.knows_verify() ? costs.Verify(num_rows) : 0.0, seconds);
    }
    costs.ObserveVerify(num_rows, seconds);
    return;
  }
  int32_t num_decode_rows = 0;
  for (const Entry& entry : round.entries) {
    if (entry.is_planned) num_decode_rows += 1 + static_cast<int32_t>(entry.draft_token_ids.size());
  }
  if (num_decode_rows == 0) {
    pacer_.ObserveAlone(round.num_prefill_tokens, seconds);
  } else if (costs.knows_verify()) {
    if (!was_overlapped) {
      costs.ObserveMixed(num_decode_rows + round.num_prefill_tokens, seconds);
    }
    pacer_.ObserveMixed({.num_tokens = round.num_prefill_tokens,
                         .num_other_rows = num_decode_rows,
                         .num_prompts = round.num_prompts,
                         .seconds = seconds,
                         .plain_seconds = costs.Verify(num_decode_rows),
                         .row_seconds = costs.RowSeconds(num_decode_rows)});
  }
}

void Engine::Impl::Commit(Round* round, const VerifyStepResult& result, bool was_overlapped,
                          absl::Duration round_trip) {
  StepInfo info{.role = Role::kTarget,
                .num_sequences = static_cast<int32_t>(round->entries.size()),
                .num_rows = 0,
                .num_prefill_tokens = round->num_prefill_tokens,
                .round_trip = round_trip,
                .compute = result.forward,
                .sample = result.sample};
  std::vector<DraftPlanner::Outcome> outcomes;
  int32_t num_drafts = 0;
  for (size_t i = 0; i < round->entries.size(); ++i) {
    const Entry& entry = round->entries[i];
    if (entry.samples) info.num_rows += 1 + static_cast<int32_t>(entry.draft_token_ids.size());
    if (!entry.is_planned || !result.results[i].status.ok()) continue;
    outcomes.push_back({.state = &entry.sequence->draft_state,
                        .plan = entry.plan,
                        .num_draft_tokens = static_cast<int32_t>(entry.draft_token_ids.size()),
                        .num_accepted = result.results[i].num_accepted});
    num_drafts += outcomes.back().num_draft_tokens;
  }
  observer_->OnStep(info);
  LearnCosts(*round, info.num_rows, was_overlapped, absl::ToDoubleSeconds(round_trip));
  planner_.Record(outcomes);
  if (!outcomes.empty()) {
    mean_draft_length_ = 1.0 * num_drafts / static_cast<double>(outcomes.size());
  }
  if (planner_.costs().knows_verify() && !outcomes.empty()) {
    plain_step_ = absl::Seconds(planner_.costs().Verify(static_cast<int32_t>(outcomes.size())));
  }
  const absl::Duration now = clock_->Now();
  for (size_t i = 0; i < round->entries.size(); ++i) {
    CommitOne(now, &round->entries[i], result.results[i]);
  }
}

void Engine::Impl::CommitOne(absl::Duration now, Entry* entry, const VerifyResult& result) {
  Sequence* sequence = entry->sequence;
  if (!result.status.ok()) {
    FailOrReplay(sequence, result.status);
    return;
  }
  RoleState& target = sequence->role(Role::kTarget);
  target.kv_length += entry->num_tokens;
  if (!entry->samples) {
    ShareFullPages(sequence);
    return;
  }

  // What was refused is rewound by the start position of the next step.
  target.kv_length += result.num_accepted;
  sequence->role(Role::kDraft).kv_length += std::min(result.num_accepted, entry->num_drafted_kv);
  sequence->num_replays = 0;
  sequence->num_target_losses = 0;
  std::optional<OutputAssembler::End> end;
  int32_t num_committed = 0;
  for (int32_t i = 0; i <= result.num_accepted && !end; ++i) {
    const bool is_draft = i < result.num_accepted;
    end = sequence->Commit(is_draft ? entry->draft_token_ids[i] : result.next_token_id,
                           result.logprobs.empty() ? nullptr : &result.logprobs[i]);
    ++num_committed;
  }
  waiting_.Charge(sequence->request.client, 0, num_committed);
  ShareFullPages(sequence);
  ReportProgress(now, *entry, num_committed, result.num_accepted);
  if (sequence->output.has_delta()) sequence->sink->OnDelta(sequence->output.TakeDelta());
  if (end) Finish(sequence, *end);
}

void Engine::Impl::ShareFullPages(Sequence* sequence) {
  for (const Role role : {Role::kTarget, Role::kDraft}) pages_.Share(role, sequence);
}

void Engine::Impl::ReportProgress(absl::Duration now, const Entry& entry, int32_t num_committed,
                                  int32_t num_accepted) {
  Sequence* sequence = entry.sequence;
  FinishedInfo& info = sequence->info;
  if (sequence->num_output_tokens() == num_committed) {
    sequence->first_token = now;
    observer_->OnFirstToken(sequence->first_step - sequence->request.arrival,
                            now - sequence->request.arrival);
  } else {
    observer_->OnInterTokenLatency(now - sequence->last_commit, num_committed);
    info.estimated_plain_decode += num_committed * plain_step_;
  }
  sequence->last_commit = now;
  if (!entry.is_planned) return;

  const int32_t num_drafts = static_cast<int32_t>(entry.draft_token_ids.size());
  const DraftSource source = num_drafts > 0 ? entry.plan.source : DraftSource::kNone;
  const std::string_view reason = num_drafts > 0              ? std::string_view()
                                  : entry.plan.reason.empty() ? bypass::kNoDraft
                                                              : entry.plan.reason;
  ++info.num_steps;
  info.num_draft_tokens += num_drafts;
  info.num_accepted += num_accepted;
  if (source == DraftSource::kLookup) {
    info.num_lookup_draft_tokens += num_drafts;
    info.num_lookup_accepted += num_accepted;
  }
  if (!reason.empty()) ++info.bypass_reasons[reason];
  observer_->OnSequenceStep({.source = source,
                             .num_draft_tokens = num_drafts,
                             .num_accepted = num_accepted,
                             .num_committed = num_committed,
                             .bypass_reason = reason});
  if (!sequence->request.speculation.trace) return;
  sequence->Trace({.source = SourceName(source),
                   .drafted = num_drafts,
                   .accepted = num_accepted,
                   .reason = std::string(entry.plan.probe ? kProbe : reason)});
}

// A worker that lost the sequence, or refuses a page of it, gets it again once; any other
// error is the request's end, and of no other.
void Engine::Impl::FailOrReplay(Sequence* sequence, const absl::Status& status) {
  const bool is_lost = absl::IsAborted(status) || absl::IsNotFound(status);
  if (!is_lost || sequence->num_replays >= kMaxReplays) {
    Fail(sequence, status);
    return;
  }
  ++sequence->num_replays;
  DropKv(Role::kTarget, sequence);
}

}  // namespace tandem::gateway
