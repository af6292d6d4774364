// Draft and target at the same time, each on one half of the batch: a round verifies the
// sequences whose drafts the round before has prepared, and has drafts prepared for the
// others. Nothing is in flight between rounds, and a sequence that is prepared for keeps its
// drafts until it is verified or its draft's KV is dropped.
#include <algorithm>

#include "services/gateway/engine/engine_impl.h"

namespace tandem::gateway {

void Engine::Impl::TakePrepared(Round* round) {
  for (Entry& entry : round->entries) {
    Sequence* sequence = entry.sequence;
    if (!entry.is_planned || !sequence->prepared) continue;
    PreparedDraft prepared = *std::exchange(sequence->prepared, std::nullopt);
    if (prepared.length != sequence->length()) continue;
    entry.is_prepared = true;
    entry.plan = prepared.plan;
    entry.plan.num_draft_tokens = static_cast<int32_t>(prepared.token_ids.size());
    entry.draft_token_ids = std::move(prepared.token_ids);
    entry.num_drafted_kv = prepared.num_drafted_kv;
  }
}

// Of the sequences that would wait for the draft, one half waits beside the other's verify.
// What is more than a half goes on without drafts once, so that both halves are alike.
void Engine::Impl::MoveAhead(Round* round) {
  const auto waits = [](const Entry& entry) {
    return entry.plan.source == DraftSource::kDraft && !entry.is_prepared;
  };
  const auto num_waiting = std::count_if(round->entries.begin(), round->entries.end(), waits);
  const auto num_prepared = std::count_if(round->entries.begin(), round->entries.end(),
                                          [](const Entry& entry) { return entry.is_prepared; });
  round->may_be_ahead = num_waiting + num_prepared >= 2;
  if (!round->may_be_ahead || !chooser_.Choose()) return;
  auto num_ahead = (num_waiting + num_prepared + 1) / 2;
  std::vector<Entry> now;
  for (Entry& entry : round->entries) {
    if (waits(entry) && num_ahead > 0) {
      --num_ahead;
      round->ahead.push_back(std::move(entry));
      continue;
    }
    if (waits(entry)) entry.plan = {.reason = bypass::kOtherHalf};
    now.push_back(std::move(entry));
  }
  round->entries = std::move(now);
}

// Who cannot be drafted for after all goes on without drafts in this round, in its place: it
// would be the first to wait in the next one too.
void Engine::Impl::PutBackFromAhead(Round* round) {
  std::vector<Entry> ahead;
  for (Entry& entry : round->ahead) {
    if (entry.plan.source == DraftSource::kDraft) {
      ahead.push_back(std::move(entry));
      continue;
    }
    const auto place = std::upper_bound(
        round->entries.begin(), round->entries.end(), entry,
        [](const Entry& a, const Entry& b) { return a.sequence->ranks_before(*b.sequence); });
    round->entries.insert(place, std::move(entry));
  }
  round->ahead = std::move(ahead);
}

void Engine::Impl::KeepPrepared(Round* round) {
  for (Entry& entry : round->ahead) {
    if (entry.plan.source != DraftSource::kDraft) continue;
    entry.sequence->prepared = {.length = entry.sequence->length(),
                                .plan = entry.plan,
                                .token_ids = std::move(entry.draft_token_ids),
                                .num_drafted_kv = entry.num_drafted_kv};
  }
}

void Engine::Impl::ObserveRound(const Round& round, const VerifyStepResult& result,
                                absl::Duration duration) {
  // Prompts cost one way of running what they cost the other.
  if (!round.may_be_ahead || round.num_prefill_tokens > 0 || round.is_measuring()) return;
  int32_t num_tokens = 0;
  for (size_t i = 0; i < round.entries.size(); ++i) {
    if (round.entries[i].samples) num_tokens += 1 + result.results[i].num_accepted;
  }
  chooser_.Observe(num_tokens, duration);
}

}  // namespace tandem::gateway
