// What drafting won and lost, for each sequence and for all.
#include <algorithm>

#include "common/speculation/controller.h"

namespace tandem {
namespace {

// A request may lose this share of its time by the drafts of a source, plus the start: what the
// first drafts may cost, in plain steps, before anything is known of this text.
constexpr double kIncome = 0.012;
constexpr double kStartingBalance = 1.2;
// What all sequences won and lost, in plain steps, decides what a new one may begin with:
// short answers would otherwise each pay for learning the same.
constexpr double kHouseStart = 6.0;
constexpr double kLargestHouse = 12.0;
constexpr double kHouseIncome = 0.003;
// What was won may be risked again; not all of it, so that a change of text is noticed.
constexpr double kLargestBalance = 30.0;
// A draft may cost this many plain steps more than the balance if nothing is kept.
constexpr double kOverdraft = 0.9;
constexpr double kLeastOverdraft = 0.3;  // of it, however bad the news of others

constexpr int32_t kFirstProbeInterval = 8;
constexpr int32_t kLastProbeInterval = 128;
// What was learned long ago should not outvote a probe.
constexpr double kProbeFade = 0.6;

}  // namespace

DraftPlanner::DraftPlanner() : house_{.draft = kHouseStart, .lookup = kHouseStart} {}

void DraftPlanner::Record(absl::Span<const Outcome> outcomes) {
  if (outcomes.empty()) return;
  const int32_t num_sequences = static_cast<int32_t>(outcomes.size());
  int32_t num_draft_rows = 0;
  int32_t num_planned = 0;
  bool was_calibrating = false;  // though a request that must draft may have drafted
  for (const Outcome& outcome : outcomes) {
    num_draft_rows += outcome.num_draft_tokens;
    num_planned += outcome.plan.num_draft_tokens;
    was_calibrating |= outcome.plan.reason == bypass::kCalibrating;
  }
  steps_since_plain_ = num_planned == 0 || was_calibrating ? 0 : steps_since_plain_ + 1;
  if (!costs_.knows_verify()) return;
  const double plain_step = costs_.Verify(num_sequences);
  const double excess = std::max(0.0, costs_.Verify(num_sequences + num_draft_rows) - plain_step);
  for (const DraftSource source : kDraftSources) house_[source] += kHouseIncome;
  for (const Outcome& outcome : outcomes) {
    SequenceDraftState& state = *outcome.state;
    for (const DraftSource source : kDraftSources) state.balance[source] += kIncome * plain_step;
    if (outcome.plan.num_draft_tokens > 0) {
      const double share = 1.0 * outcome.plan.num_draft_tokens / num_planned;
      const double won = outcome.num_accepted * plain_step - num_sequences * excess * share;
      state.balance[outcome.plan.source] += won;
      house_[outcome.plan.source] += won / plain_step / num_sequences;
      AcceptanceEstimate& own = state.acceptance.Of(outcome.plan.source, outcome.plan.match.trust);
      if (outcome.plan.probe) own.Fade(kProbeFade);
      // A draft that was broken off, for want of confidence, gained as little as one that was
      // refused there.
      const int32_t num_tried =
          std::min(outcome.num_draft_tokens + 1, outcome.plan.num_draft_tokens);
      own.Record(num_tried, outcome.num_accepted);
      acceptance_.Of(outcome.plan.source, outcome.plan.match.trust)
          .Record(num_tried, outcome.num_accepted);
      if (outcome.plan.source == DraftSource::kDraft) {
        state.acceptance.going_on().Record(outcome.plan.num_draft_tokens, outcome.num_draft_tokens);
        acceptance_.going_on().Record(outcome.plan.num_draft_tokens, outcome.num_draft_tokens);
      }
      const bool failed = outcome.plan.probe && outcome.num_accepted < outcome.num_draft_tokens;
      state.probe_interval =
          failed ? std::clamp(2 * state.probe_interval, kFirstProbeInterval, kLastProbeInterval)
                 : kFirstProbeInterval / 2;
      state.steps_until_probe = outcome.plan.probe && !failed ? 0 : state.probe_interval;
    } else if (state.steps_until_probe > 0) {
      --state.steps_until_probe;
    }
    for (const DraftSource source : kDraftSources) {
      state.balance[source] = std::min(state.balance[source], kLargestBalance * plain_step);
    }
  }
  for (const DraftSource source : kDraftSources) {
    house_[source] = std::min(house_[source], kLargestHouse);
  }
}

// That drafting pays on the whole: 0 to 1.
double DraftPlanner::Confidence(DraftSource source) const {
  return std::clamp(house_[source] / kHouseStart, 0.0, 1.0);
}

// In plain steps.
double DraftPlanner::StartingBalance(DraftSource source) const {
  return kStartingBalance * Confidence(source);
}

double DraftPlanner::Overdraft(DraftSource source) const {
  return kOverdraft * std::max(kLeastOverdraft, Confidence(source));
}

void DraftPlanner::RecordDraftTime(absl::Span<const DraftWork> work, int32_t num_sequences,
                                   double seconds) {
  int32_t num_tokens = 0;
  for (const DraftWork& one : work) num_tokens += one.num_tokens;
  for (const DraftWork& one : work) {
    const double share = 1.0 * one.num_tokens / num_tokens;
    one.state->balance.draft -= std::max(1, num_sequences) * seconds * share;
  }
  if (costs_.knows_verify() && num_tokens > 0) {
    house_.draft -= seconds / costs_.Verify(std::max(1, num_sequences));
  }
}

}  // namespace tandem
