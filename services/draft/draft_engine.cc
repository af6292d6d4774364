#include "services/draft/draft_engine.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "common/speculation/verify.h"
#include "common/worker/draft_probs.h"
#include "common/worker/finite_row.h"

namespace tandem::draft {

using worker::ProposeResult;
using worker::SequenceStep;

absl::StatusOr<int32_t> DraftEngine::AttachPool(const std::string& socket_path, int64_t epoch,
                                                absl::Duration timeout) {
  if (epoch == 0) return absl::InvalidArgumentError("a pool's epoch is at least 1");
  if (pool_ != nullptr && pool_->geometry().epoch == epoch) {
    return executor_->kv_layout().page_positions;
  }
  // The old pool goes first: its target is gone, and the memory with it.
  table_.reset();
  pool_.reset();
  ASSIGN_OR_RETURN(SharedPool pool, ConnectPool({.path = socket_path,
                                                 .epoch = epoch,
                                                 .map_pages = true,
                                                 .device = device_,
                                                 .timeout = timeout}));
  RETURN_IF_ERROR(executor_->AttachKv({.base = pool.pages(),
                                       .page_bytes = pool.geometry().page_bytes,
                                       .num_pages = pool.geometry().num_pages}));
  pool_ = std::make_unique<SharedPool>(std::move(pool));
  table_ = std::make_unique<worker::SequenceTable>(
      worker::SequenceLimits{.vocab_size = executor_->config().vocab_size,
                             .max_positions = executor_->limits().max_positions,
                             .positions_per_page = executor_->kv_layout().page_positions,
                             .max_sequences = max_sequences_});
  return executor_->kv_layout().page_positions;
}

absl::Status DraftEngine::CheckPool(const worker::WorkerStep& step) const {
  if (pool_ == nullptr) {
    return absl::FailedPreconditionError("the draft has no page pool: call AttachPool first");
  }
  if (step.pool_epoch != pool_->geometry().epoch) {
    return absl::AbortedError(absl::StrCat("the step is of pool epoch ", step.pool_epoch,
                                           ", the attached pool of ", pool_->geometry().epoch));
  }
  return absl::OkStatus();
}

worker::ProposeStepResult DraftEngine::Run(const worker::WorkerStep& step) {
  worker::ProposeStepResult result = {.step_id = step.step_id};
  result.status = CheckPool(step);
  if (!result.status.ok()) return result;
  table_->BeginStep(step);

  const absl::Duration start = Clock::Steady().Now();
  const size_t count = step.sequences.size();
  seen_.clear();
  entries_.assign(count, {});
  works_.assign(count, {});
  result.results.resize(count);
  for (size_t i = 0; i < count; ++i) {
    const SequenceStep& entry_step = step.sequences[i];
    Entry& entry = entries_[i];
    result.results[i].sequence = entry_step.sequence;
    result.results[i].status = works_[i].status = Begin(entry_step, entry);
    if (!works_[i].status.ok()) continue;
    works_[i].start_position = entry_step.start_position;
    works_[i].token_ids = entry_step.token_ids;
    works_[i].num_logits = entry.is_drafting ? 1 : 0;
    works_[i].page_table = entry.sequence->page_table;
    works_[i].candidates = entry.sequence->sampler.candidate_query();
  }
  if (RunOnDevice(result)) {
    result.draft = Clock::Steady().Now() - start;
  } else {
    RunOneByOne(result);
    result.draft = Clock::Steady().Now() - start - result.prefill;
  }
  for (size_t i = 0; i < count; ++i) End(entries_[i], result.results[i]);
  return result;
}

void DraftEngine::RunOneByOne(worker::ProposeStepResult& result) {
  const absl::Duration start = Clock::Steady().Now();
  const auto may_run = [&](int32_t index) { return CheckFence(entries_[index]); };
  runner_.Run(absl::MakeSpan(works_), may_run, [&](int32_t index, int32_t row) {
    Draft(entries_[index], row, result.results[index]);
  });
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (works_[i].status.ok() || entries_[i].sequence == nullptr) continue;
    result.results[i].status = works_[i].status;
    entries_[i].is_drafting = false;
  }
  result.prefill = Clock::Steady().Now() - start;
  while (RunDraftPass(result)) {
  }
}

absl::Status DraftEngine::Begin(const SequenceStep& step, Entry& entry) {
  const auto refuse = [&step](auto... parts) {
    return absl::InvalidArgumentError(
        absl::StrCat("sequence ", static_cast<int64_t>(step.sequence), " ", parts...));
  };
  if (!seen_.insert(step.sequence).second) return refuse("is twice in one step");
  if (step.num_draft_tokens < 0 || step.num_draft_tokens > kMaxDraftLength) {
    return refuse("asks for ", step.num_draft_tokens, " drafts, 0 to ", kMaxDraftLength);
  }
  if (step.token_ids.empty()) return refuse("has no token to go on from");
  if (!(step.min_confidence >= 0.0f && step.min_confidence <= 1.0f)) {
    return refuse("has min_confidence ", step.min_confidence, ", not in [0, 1]");
  }
  const int32_t num_slots = pool_->geometry().num_draft_probs_slots;
  if (step.draft_probs_slot < -1 || step.draft_probs_slot >= num_slots) {
    return refuse("names slot ", step.draft_probs_slot, ", the pool has ", num_slots);
  }
  // The last draft token is not run here.
  const int32_t num_more = std::max(step.num_draft_tokens - 1, 0);
  ASSIGN_OR_RETURN(entry.sequence, table_->Begin(step, num_more, pool_->control()));
  entry.step = &step;
  entry.certain_length = entry.sequence->sampler.length();
  entry.is_drafting = step.num_draft_tokens > 0;
  if (entry.is_drafting && step.draft_probs_slot >= 0) {
    worker::BeginDraftProbs(step.sequence, entry.certain_length,
                            pool_->control().draft_probs_slot(step.draft_probs_slot));
  }
  return absl::OkStatus();
}

absl::Status DraftEngine::CheckFence(const Entry& entry) const {
  return table_->CheckFence(entry.step->sequence, *entry.sequence, entry.sequence->sampler.length(),
                            pool_->control());
}

void DraftEngine::Draft(Entry& entry, int32_t row, ProposeResult& result) {
  TokenSampler& sampler = entry.sequence->sampler;
  const SequenceStep& step = *entry.step;
  distribution_.ids.clear();
  distribution_.probs.clear();
  entry.is_drafting = false;
  if (const std::optional<Proposal> proposal = ProposeWithoutRow(entry, row)) {
    Take(entry, *proposal, result);
    return;
  }
  const absl::Span<float> logits = executor_->Logits(row);
  if (!worker::IsFiniteRow(logits)) {
    result.status = absl::InternalError(
        absl::StrCat("sequence ", static_cast<int64_t>(step.sequence),
                     ": the draft's logits are not finite; its weights may be damaged"));
    return;
  }
  const absl::StatusOr<Proposal> proposal =
      ProposeToken(&sampler, logits, /*with_prob=*/true, &distribution_, &scratch_);
  if (!proposal.ok()) {
    result.status = proposal.status();
    return;
  }
  Take(entry, *proposal, result);
}

// Plain drafts need no more of a row than what a backend has at hand.
std::optional<Proposal> DraftEngine::ProposeWithoutRow(const Entry& entry, int32_t row) {
  TokenSampler& sampler = entry.sequence->sampler;
  if (sampler.takes_greatest()) {
    return ProposeDrafted(entry, DraftToken::Greedy(executor_->Greatest(row)));
  }
  if (sampler.candidate_query().temperature <= 0.0f) return std::nullopt;
  const std::optional<RowCandidates> candidates = executor_->Candidates(row);
  if (!candidates.has_value()) return std::nullopt;
  return ProposeFromCandidates(&sampler, *candidates, &scratch_);
}

bool DraftEngine::IsProposal(const Entry& entry, const DraftToken& token) {
  return std::isfinite(token.logit) && std::isfinite(token.probability) &&
         std::isfinite(token.top_probability) && token.token_id >= 0 &&
         token.token_id < entry.sequence->sampler.num_ids();
}

std::optional<Proposal> DraftEngine::ProposeDrafted(const Entry& entry, const DraftToken& token) {
  if (!IsProposal(entry, token)) return std::nullopt;
  entry.sequence->sampler.Append({token.token_id});
  return Proposal{
      .token_id = token.token_id, .prob = token.probability, .top_prob = token.top_probability};
}

// The proposal, which the sampler's history has, becomes part of the draft or ends it.
void DraftEngine::Take(Entry& entry, const Proposal& proposal, ProposeResult& result) {
  TokenSampler& sampler = entry.sequence->sampler;
  const SequenceStep& step = *entry.step;
  if (proposal.top_prob < step.min_confidence) {
    sampler.Rewind(sampler.length() - 1);
    return;
  }
  result.draft_token_ids.push_back(proposal.token_id);
  result.draft_probs.push_back(proposal.prob);
  if (step.draft_probs_slot >= 0 && !distribution_.ids.empty()) {
    worker::AppendDraftProbs(proposal.token_id, distribution_,
                             pool_->control().draft_probs_slot(step.draft_probs_slot));
  }
  entry.next_token = proposal.token_id;
  entry.is_drafting = static_cast<int32_t>(result.draft_token_ids.size()) < step.num_draft_tokens;
}

bool DraftEngine::RunDraftPass(worker::ProposeStepResult& result) {
  works_.clear();
  work_entries_.clear();
  for (size_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    if (!entry.is_drafting) continue;
    works_.push_back({.start_position = entry.sequence->sampler.length() - 1,
                      .token_ids = {&entry.next_token, 1},
                      .num_logits = 1,
                      .page_table = entry.sequence->page_table,
                      .candidates = entry.sequence->sampler.candidate_query(),
                      .status = absl::OkStatus()});
    work_entries_.push_back(static_cast<int32_t>(i));
  }
  if (works_.empty()) return false;
  const auto may_run = [&](int32_t index) { return CheckFence(entries_[work_entries_[index]]); };
  runner_.Run(absl::MakeSpan(works_), may_run, [&](int32_t index, int32_t row) {
    const int32_t i = work_entries_[index];
    Draft(entries_[i], row, result.results[i]);
  });
  for (size_t k = 0; k < works_.size(); ++k) {
    if (works_[k].status.ok()) continue;
    entries_[work_entries_[k]].is_drafting = false;
    result.results[work_entries_[k]].status = works_[k].status;
  }
  return true;
}

void DraftEngine::End(Entry& entry, const ProposeResult& result) {
  if (entry.sequence == nullptr) return;
  TokenSampler& sampler = entry.sequence->sampler;
  if (!result.status.ok()) {
    sampler.Rewind(entry.step->start_position);
    return;
  }
  // What was run stays, all drafts but the last: the gateway says with the next step
  // from where on it was refused.
  const auto num_drafts = static_cast<int32_t>(result.draft_token_ids.size());
  sampler.Rewind(entry.certain_length + std::max(num_drafts - 1, 0));
}

}  // namespace tandem::draft
