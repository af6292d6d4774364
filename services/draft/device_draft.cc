// Drafts that a device makes by itself.
#include <algorithm>
#include <optional>

#include "services/draft/draft_engine.h"

namespace tandem::draft {

using worker::ProposeResult;
using worker::SequenceStep;

// Prompts go the other way: how long they take is measured by itself.
bool DraftEngine::MayRunOnDevice() const {
  constexpr int32_t kMostTokens = 8;  // of a draft
  if (!executor_->can_draft()) return false;
  int32_t num_tokens = 0;
  int32_t num_drafts = 0;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    if (!works_[i].status.ok()) continue;
    num_tokens += static_cast<int32_t>(works_[i].token_ids.size());
    num_drafts += works_[i].num_logits;
    const TokenSampler& sampler = entry.sequence->sampler;
    if (entry.is_drafting && !sampler.takes_greatest() && !sampler.takes_noisiest()) return false;
    if (!CheckFence(entry).ok()) return false;
  }
  return num_drafts > 0 && num_drafts <= runner_.max_rows() &&
         num_tokens <= std::min(executor_->limits().max_step_tokens, kMostTokens * num_drafts);
}

bool DraftEngine::RunOnDevice(worker::ProposeStepResult& result) {
  if (!MayRunOnDevice()) return false;
  device_sequences_.clear();
  device_limits_.clear();
  work_entries_.clear();
  for (size_t i = 0; i < entries_.size(); ++i) {
    const worker::ForwardWork& work = works_[i];
    if (!work.status.ok()) continue;
    const SequenceStep& step = *entries_[i].step;
    device_sequences_.push_back({.start_position = work.start_position,
                                 .token_ids = work.token_ids,
                                 .num_logits = work.num_logits,
                                 .page_table = work.page_table,
                                 .candidates = work.candidates});
    const SamplingParams& params = entries_[i].sequence->sampler.params();
    device_limits_.push_back({.max_tokens = step.num_draft_tokens,
                              .min_probability = step.min_confidence,
                              .top_k = params.top_k,
                              .top_p = params.top_p,
                              .min_p = params.min_p});
    work_entries_.push_back(static_cast<int32_t>(i));
  }
  // What fails, or begins with no token, is run again one by one, which finds why.
  if (!executor_->Draft(device_sequences_, device_limits_, &device_drafts_).ok()) return false;
  for (size_t k = 0; k < work_entries_.size(); ++k) {
    const Entry& entry = entries_[work_entries_[k]];
    if (entry.is_drafting && !IsProposal(entry, device_drafts_[k].front())) return false;
  }
  for (size_t k = 0; k < work_entries_.size(); ++k) {
    Entry& entry = entries_[work_entries_[k]];
    if (entry.is_drafting) TakeDraft(entry, device_drafts_[k], result.results[work_entries_[k]]);
  }
  return true;
}

void DraftEngine::TakeDraft(Entry& entry, absl::Span<const DraftToken> draft,
                            ProposeResult& result) {
  for (const DraftToken& token : draft) {
    if (!entry.is_drafting) return;
    if (const std::optional<Proposal> proposal = ProposeDrafted(entry, token)) {
      Take(entry, *proposal, result);
    } else {
      entry.is_drafting = false;
    }
  }
  entry.is_drafting = false;
}

}  // namespace tandem::draft
