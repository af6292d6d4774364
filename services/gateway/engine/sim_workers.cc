#include "services/gateway/engine/sim_workers.h"

#include <algorithm>
#include <utility>

namespace tandem::gateway {

absl::StatusOr<VerifyStepResult> SimTarget::Await(absl::Duration timeout) {
  const WorkerStep step = *in_flight_;
  absl::Status status = BeginStep(step, timeout);
  if (!status.ok()) {
    in_flight_.reset();
    clock_->Advance(absl::Milliseconds(1));
    return status;
  }
  VerifyStepResult result;
  int32_t num_rows = 0;
  int32_t num_prefill = 0;
  for (const SequenceStep& entry : step.sequences) {
    num_rows += entry.sample ? 1 + static_cast<int32_t>(entry.draft_token_ids.size()) : 0;
    num_prefill += static_cast<int32_t>(entry.token_ids.size()) - (entry.sample ? 1 : 0);
    result.results.push_back(RunEntry(entry));
  }
  in_flight_.reset();
  result.copy = static_cast<double>(step.copies.size()) * options_.copy_cost;
  clock_->Advance(result.copy);
  result.forward = Spend(
      options_.step_cost + num_rows * options_.row_cost + num_prefill * options_.prefill_token_cost,
      timeout);
  if (num_rows + num_prefill > options_.facts.max_step_tokens ||
      num_rows > options_.facts.max_logits_rows) {
    Violation("step too large").IgnoreError();
  }
  return result;
}

VerifyResult SimTarget::RunEntry(const SequenceStep& step) {
  VerifyResult result;
  const absl::StatusOr<SimSequence*> begun =
      BeginEntry(step, static_cast<int32_t>(step.draft_token_ids.size()));
  if (!begun.ok()) {
    result.status = begun.status();
    return result;
  }
  SimSequence* sequence = *begun;
  int32_t position = step.start_position;
  std::vector<uint64_t> states;  // that make the rows
  for (const int32_t id : step.token_ids) states = {RunToken(sequence, position++, id)};
  drafts_seen.insert(step.draft_token_ids.begin(), step.draft_token_ids.end());
  for (const int32_t id : step.draft_token_ids) {
    states.push_back(RunToken(sequence, position++, id));
  }
  if (!step.sample) return result;
  if (poison_token >= 0 && step.token_ids.back() == poison_token) {
    result.status = absl::InternalError("logits are not finite");
    return result;
  }
  std::vector<SparseDistribution> draft_probs;
  if (step.draft_probs_slot >= 0) draft_probs = pool_->draft_probs[step.draft_probs_slot];
  // The engine may have kept fewer drafts than were drawn.
  draft_probs.resize(std::min(draft_probs.size(), step.draft_token_ids.size()));
  std::vector<float> logits;
  const absl::StatusOr<VerifyOutcome> outcome = VerifyDraft(
      sequence->sampler.get(),
      [&](int32_t row) {
        Logits(states[row], &logits);
        return absl::MakeSpan(logits);
      },
      step.draft_token_ids, draft_probs, &scratch_);
  if (!outcome.ok()) {
    result.status = outcome.status();
    return result;
  }
  result.num_accepted = outcome->num_accepted;
  result.next_token_id = outcome->next_token_id;
  result.logprobs = outcome->logprobs;
  return result;
}

// As the link does: a session is of one pool, and a new one begins with no sequences.
absl::StatusOr<WorkerFacts> SimDraft::Facts() {
  if (std::exchange(attached_epoch_, pool_->epoch) != pool_->epoch) {
    sequences_.clear();
    ++options_.facts.incarnation;
  }
  return CurrentFacts();
}

absl::StatusOr<ProposeStepResult> SimDraft::Await(absl::Duration timeout) {
  const WorkerStep step = *in_flight_;
  absl::Status status = BeginStep(step, timeout);
  if (!status.ok()) {
    in_flight_.reset();
    clock_->Advance(absl::Milliseconds(1));
    return status;
  }
  ProposeStepResult result;
  int32_t longest = 0;
  int32_t num_prefill = 0;
  for (const SequenceStep& entry : step.sequences) {
    result.results.push_back(RunEntry(entry));
    longest = std::max(longest, static_cast<int32_t>(result.results.back().draft_token_ids.size()));
    num_prefill += static_cast<int32_t>(entry.token_ids.size());
  }
  in_flight_.reset();
  result.prefill =
      Spend(options_.prefill_cost + num_prefill * options_.prefill_token_cost, timeout);
  result.draft = Spend(longest * options_.step_cost, timeout);
  return result;
}

ProposeResult SimDraft::RunEntry(const SequenceStep& step) {
  ProposeResult result;
  const absl::StatusOr<SimSequence*> begun =
      BeginEntry(step, std::max(0, step.num_draft_tokens - 1));
  if (!begun.ok()) {
    result.status = begun.status();
    return result;
  }
  SimSequence* sequence = *begun;
  TokenSampler* sampler = sequence->sampler.get();
  int32_t position = step.start_position;
  uint64_t state = 0;
  for (const int32_t id : step.token_ids) state = RunToken(sequence, position++, id);
  const int32_t certain_length = position;
  if (step.draft_probs_slot >= 0) pool_->draft_probs[step.draft_probs_slot].clear();
  std::vector<float> logits;
  for (int32_t i = 0; i < step.num_draft_tokens; ++i) {
    Logits(state, &logits);
    SparseDistribution draft_probs;
    const Proposal proposal =
        ProposeToken(sampler, absl::MakeSpan(logits), true, &draft_probs, &scratch_).value();
    if (proposal.top_prob < step.min_confidence) break;
    result.draft_token_ids.push_back(proposal.token_id);
    ids_drafted.insert(proposal.token_id);
    result.draft_probs.push_back(proposal.prob);
    if (step.draft_probs_slot >= 0) {
      pool_->draft_probs[step.draft_probs_slot].push_back(draft_probs);
    }
    if (i + 1 < step.num_draft_tokens) state = RunToken(sequence, position++, proposal.token_id);
  }
  sampler->Rewind(std::min(
      sampler->length(),
      certain_length + std::max(0, static_cast<int32_t>(result.draft_token_ids.size()) - 1)));
  return result;
}

}  // namespace tandem::gateway
