#include "common/speculation/controller.h"

#include <algorithm>

namespace tandem {
namespace {

// Bad luck alone must not end drafting: so much may be owed while drafts still promise to
// pay, which is only so for long when they do.
constexpr double kLargestDebt = 3.0;

constexpr int32_t kProbeTokens = 2;

// A plain step is run now and then to measure what the others are compared with; one in
// this many costs well below 1 %.
constexpr int32_t kCalibrationInterval = 400;

// What the draft has not read of a sequence it reads once, and so many steps gain by it; the tokens
// of a step it reads each time.
constexpr int32_t kStepTokens = 4;
constexpr double kCatchUpSteps = 16.0;

// Of a function of whole numbers, between two of them.
template <typename Function>
double Between(double at, const Function& function) {
  const auto below = static_cast<int32_t>(at);
  const double part = at - below;
  const double value = function(below);
  return part == 0.0 ? value : value + part * (function(below + 1) - value);
}

bool IsAutomatic(const DraftRequest& request) {
  return request.min_tokens == 0 && request.max_tokens > 0;
}

// Whether its drafts end where the draft model lacks confidence.
bool BreaksOff(const DraftRequest& request) { return request.greedy && IsAutomatic(request); }

bool MayAskDraft(const DraftRequest& request) {
  return request.allow_draft && request.draft_unavailable.empty();
}
bool MayLookUp(const DraftRequest& request) {
  return request.allow_lookup && request.match.length > 0;
}

bool MayDraft(const DraftRequest& request) {
  return request.max_tokens > 0 && (request.allow_draft || request.allow_lookup);
}

}  // namespace

// What `length` drafted rows of one sequence cost a step. The first rows may cost as much as many
// (on a GPU eight at a time are added): where others may draft too, it is a share of that.
double DraftPlanner::RowsCost(int32_t num_sequences, int32_t length) const {
  const double alone = costs_.Verify(num_sequences + length) - costs_.Verify(num_sequences);
  return num_sequences == 1 ? alone : std::min(alone, costs_.RowSeconds(num_sequences) * length);
}

Prospect DraftPlanner::ProspectOf(const DraftRequest& request, int32_t num_sequences) const {
  Prospect prospect(request);
  if (!MayAskDraft(request) && !MayLookUp(request)) return prospect;
  const bool bounded = IsAutomatic(request) && costs_.knows_verify();
  const double plain_step = bounded ? costs_.Verify(num_sequences) : 0.0;
  const auto affordable = [&](DraftSource source, int32_t length) {
    if (!bounded) return true;
    const double balance = request.state->balance[source];
    if (balance < -kLargestDebt * plain_step) return false;
    // Everyone waits for its rows; the draft's step is one that all share.
    const double loss =
        num_sequences * RowsCost(num_sequences, length) +
        (source == DraftSource::kDraft ? costs_.Propose(num_sequences, length) : 0.0);
    return loss <= std::max(0.0, balance) + Overdraft(source) * plain_step;
  };
  const auto survivals = [&](DraftSource source) {
    const AcceptanceEstimate& estimate = request.state->acceptance.Of(source, request.match.trust);
    Survivals result;
    double survives = 1.0;
    while (result.size() < std::min(request.max_tokens, int32_t{kMaxDraftLength}) &&
           affordable(source, result.size() + 1)) {
      survives *= estimate.Conditional(result.size());
      result.Append(survives);
    }
    return result;
  };
  if (MayLookUp(request)) prospect.lookup = survivals(DraftSource::kLookup);
  if (!MayAskDraft(request)) return prospect;
  prospect.draft = survivals(DraftSource::kDraft);
  double made = 1.0;
  for (int32_t i = 0; i < kMaxDraftLength; ++i) {
    if (BreaksOff(request)) made *= request.state->acceptance.going_on().Conditional(i);
    prospect.made[i + 1] = prospect.made[i] + made;
  }
  return prospect;
}

// `prospects`: of those among `num_sequences` that have something to draft.
DraftPlanner::Promise DraftPlanner::PromiseOf(const std::vector<Prospect>& prospects,
                                              const Choice& choice, int32_t num_sequences,
                                              int32_t num_prefill_tokens) const {
  Promise promise{.tokens = 1.0 * num_sequences};
  double num_rows = num_sequences + num_prefill_tokens;
  int32_t num_drafting = 0;
  double num_draft_steps = 0.0;
  for (const Prospect& prospect : prospects) {
    const Prospect::Draft draft = prospect.Choose(choice);
    if (draft.source == DraftSource::kNone) continue;
    promise.tokens += draft.gain;
    promise.longest = std::max(promise.longest, draft.num_tokens);
    if (draft.source == DraftSource::kLookup) {
      num_rows += draft.num_tokens;
      continue;
    }
    // As many as are expected; the one that ends a draft early is run too.
    const double num_made = prospect.made[draft.num_tokens];
    num_rows += num_made;
    num_draft_steps = std::max(num_draft_steps, 1.0 + prospect.made[draft.num_tokens - 1]);
    ++num_drafting;
    const int32_t num_missing = prospect.request->num_missing_tokens;
    promise.seconds += (std::min(num_missing, kStepTokens) +
                        std::max(0, num_missing - kStepTokens) / kCatchUpSteps) *
                       costs_.DraftPrefillToken();
  }
  promise.seconds += Between(num_rows, [&](int32_t rows) { return costs_.Verify(rows); }) +
                     Between(num_draft_steps,
                             [&](int32_t tokens) { return costs_.Propose(num_drafting, tokens); });
  return promise;
}

Choice DraftPlanner::BestChoice(const std::vector<Prospect>& prospects, int32_t num_sequences,
                                int32_t num_prefill_tokens, double* tokens_per_second) const {
  const auto promise_of = [&](const Choice& choice) {
    return PromiseOf(prospects, choice, num_sequences, num_prefill_tokens);
  };
  Choice best;
  const Promise plain = promise_of(best);
  double best_rate = plain.tokens / plain.seconds;
  const double least_rate = LeastGain(num_sequences) * best_rate;
  const auto look_at_lengths = [&](int32_t level, bool asks_draft) {
    for (int32_t depth = 1; depth <= kMaxDraftLength; ++depth) {
      const Choice choice = {.depth = depth, .level = level, .asks_draft = asks_draft};
      const Promise promise = promise_of(choice);
      const double rate = promise.tokens / promise.seconds;
      if (rate > best_rate && rate >= least_rate) {
        best_rate = rate;
        best = choice;
      }
      if (promise.longest < depth) break;  // nor is any draft longer for a greater depth
    }
  };
  for (int32_t level = 0; level < static_cast<int32_t>(kLeastSurvivals.size()); ++level) {
    look_at_lengths(level, /*asks_draft=*/false);
    look_at_lengths(level, /*asks_draft=*/true);
  }
  *tokens_per_second = best_rate;
  return best;
}

std::string_view DraftPlanner::BypassReason(const DraftRequest& request) const {
  if (!request.allow_draft && !request.allow_lookup) return bypass::kOff;
  if (request.max_tokens == 0) return bypass::kLastToken;
  if (!request.allow_draft)
    return request.match.length > 0 ? bypass::kNotWorthIt : bypass::kNoMatch;
  if (!request.draft_unavailable.empty()) return request.draft_unavailable;
  return bypass::kNotWorthIt;
}

// `num_rows`: of the step so far.
bool DraftPlanner::TryProbe(const DraftRequest& request, int32_t num_sequences, int32_t num_rows,
                            DraftPlan* plan) const {
  const SequenceDraftState& state = *request.state;
  if (!IsAutomatic(request) || state.steps_until_probe > 0) return false;
  const bool by_lookup = MayLookUp(request);
  if (!by_lookup && !MayAskDraft(request)) return false;
  const int32_t length = std::min(kProbeTokens, request.max_tokens);
  double cost = costs_.Verify(num_rows + length) - costs_.Verify(num_rows);
  if (!by_lookup) {
    cost += costs_.Propose(1, length) + request.num_missing_tokens * costs_.DraftPrefillToken();
  }
  const DraftSource source = by_lookup ? DraftSource::kLookup : DraftSource::kDraft;
  if (num_sequences * cost > state.balance[source]) return false;
  plan->source = source;
  plan->match = request.match;
  plan->num_draft_tokens = length;
  plan->probe = true;
  return true;
}

// The draft stops where one more token costs more time than it promises tokens.
float DraftPlanner::MinConfidence(int32_t num_sequences, double tokens_per_second) const {
  if (!costs_.knows_verify() || !costs_.knows_propose()) return 0.0f;
  const double propose = costs_.Propose(num_sequences, 2) - costs_.Propose(num_sequences, 1);
  const double row = (costs_.Verify(num_sequences + 4) - costs_.Verify(num_sequences)) / 4.0;
  const double break_even = tokens_per_second * (propose / num_sequences + row);
  return static_cast<float>(std::clamp(0.7 * break_even, 0.0, 0.5));
}

std::vector<DraftPlan> DraftPlanner::Plan(absl::Span<const DraftRequest> requests,
                                          int32_t num_prefill_tokens) {
  std::vector<DraftPlan> plans(requests.size());
  if (std::none_of(requests.begin(), requests.end(), MayDraft)) {
    for (size_t i = 0; i < plans.size(); ++i) plans[i].reason = BypassReason(requests[i]);
    return plans;
  }
  const int32_t num_sequences = static_cast<int32_t>(requests.size());
  const bool calibrating = !costs_.knows_verify() || steps_since_plain_ >= kCalibrationInterval;
  std::vector<Prospect> prospects;
  const SourceAcceptance::Rates rates = acceptance_.rates();
  for (const DraftRequest& request : requests) {
    request.state->acceptance.SetPriors(rates);
    if (costs_.knows_verify() && !request.state->has_account) {
      request.state->has_account = true;
      for (const DraftSource source : kDraftSources) {
        request.state->balance[source] += StartingBalance(source) * costs_.Verify(num_sequences);
      }
    }
    if (calibrating && IsAutomatic(request)) continue;
    Prospect prospect = ProspectOf(request, num_sequences);
    if (!prospect.IsEmpty()) prospects.push_back(prospect);
  }
  Choice choice = {.depth = kMaxDraftLength};  // while nothing is known
  double tokens_per_second = 0.0;
  if (costs_.knows_verify()) {
    choice = BestChoice(prospects, num_sequences, num_prefill_tokens, &tokens_per_second);
  }
  for (const Prospect& prospect : prospects) {
    const DraftRequest& request = *prospect.request;
    const Prospect::Draft draft = prospect.Choose(choice);
    DraftPlan& plan = plans[&request - requests.data()];
    plan.source = draft.source;
    plan.num_draft_tokens = draft.num_tokens;
    plan.match = request.match;
  }
  const float min_confidence = MinConfidence(num_sequences, tokens_per_second);
  int32_t num_rows = num_sequences + num_prefill_tokens;
  for (const DraftPlan& plan : plans) num_rows += plan.num_draft_tokens;
  for (int32_t i = 0; i < num_sequences; ++i) {
    DraftPlan& plan = plans[i];
    const DraftRequest& request = requests[i];
    if (plan.num_draft_tokens > 0) {
      if (BreaksOff(request)) plan.min_confidence = min_confidence;
    } else if (calibrating && IsAutomatic(request)) {
      plan.reason = bypass::kCalibrating;
    } else if (TryProbe(request, num_sequences, num_rows, &plan)) {
      num_rows += plan.num_draft_tokens;
    } else {
      plan.reason = BypassReason(request);
    }
  }
  return plans;
}

}  // namespace tandem
