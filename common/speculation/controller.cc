#include "common/speculation/controller.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace tandem {
namespace {

// Bad luck alone must not end drafting: so much may be owed while drafts still promise to
// pay, which is only so for long when they do.
constexpr double kLargestDebt = 3.0;

constexpr int32_t kProbeTokens = 2;

// A plain step is run now and then to measure what the others are compared with; one in
// this many costs well below 1 %.
constexpr int32_t kCalibrationInterval = 400;

// A looked-up draft is taken when it promises this share of the draft model's tokens.
constexpr double kLookupPreference = 0.8;

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

bool MayDraft(const DraftRequest& request) {
  return request.max_tokens > 0 && (request.allow_draft || request.allow_lookup);
}

}  // namespace

SourceAcceptance::SourceAcceptance(double memory)
    : draft_(0.7, memory),
      lookups_{AcceptanceEstimate(0.35, memory), AcceptanceEstimate(0.5, memory),
               AcceptanceEstimate(0.65, memory), AcceptanceEstimate(0.8, memory),
               AcceptanceEstimate(0.95, memory)},
      going_on_(0.95, memory) {}

const AcceptanceEstimate& SourceAcceptance::Of(DraftSource source, MatchTrust trust) const {
  return source == DraftSource::kLookup ? lookups_[static_cast<size_t>(trust)] : draft_;
}

AcceptanceEstimate& SourceAcceptance::Of(DraftSource source, MatchTrust trust) {
  return const_cast<AcceptanceEstimate&>(std::as_const(*this).Of(source, trust));
}

void SourceAcceptance::SetPriors(const SourceAcceptance& all) {
  draft_.set_prior_rate(all.draft_.rate());
  for (size_t i = 0; i < lookups_.size(); ++i) lookups_[i].set_prior_rate(all.lookups_[i].rate());
  going_on_.set_prior_rate(all.going_on_.rate());
}

DraftPlanner::Prospect DraftPlanner::ProspectOf(const DraftRequest& request,
                                                int32_t num_sequences) const {
  Prospect prospect{.request = &request, .draft = {}, .lookup = {}, .made = {}};
  double made = 1.0;
  for (int32_t i = 0; i < kMaxDraftLength; ++i) {
    if (BreaksOff(request)) made *= request.state->acceptance.going_on().Conditional(i);
    prospect.made[i] = made;
  }
  const bool bounded = IsAutomatic(request) && costs_.knows_verify();
  const double plain_step = bounded ? costs_.Verify(num_sequences) : 0.0;
  if (bounded && request.state->balance < -kLargestDebt * plain_step) return prospect;
  const auto affordable = [&](DraftSource source, int32_t length) {
    if (!bounded) return true;
    // Everyone waits for its rows; the draft's step is one that all share.
    const double allowed = std::max(0.0, request.state->balance) + Overdraft() * plain_step;
    const double loss =
        num_sequences * (costs_.Verify(num_sequences + length) - plain_step) +
        (source == DraftSource::kDraft ? costs_.Propose(num_sequences, length) : 0.0);
    return loss <= allowed;
  };
  const auto survival = [&](DraftSource source) {
    const AcceptanceEstimate& estimate = request.state->acceptance.Of(source, request.match.trust);
    Survival result;
    double survives = 1.0;
    while (result.size < std::min(request.max_tokens, int32_t{kMaxDraftLength}) &&
           affordable(source, result.size + 1)) {
      survives *= estimate.Conditional(result.size);
      result.probs[result.size++] = survives;
    }
    return result;
  };
  if (request.allow_draft && request.draft_unavailable.empty()) {
    prospect.draft = survival(DraftSource::kDraft);
  }
  if (request.allow_lookup && request.match.length > 0) {
    prospect.lookup = survival(DraftSource::kLookup);
  }
  return prospect;
}

DraftPlan DraftPlanner::PlanOne(const Prospect& prospect, int32_t depth, double least_survival,
                                double* tokens) {
  const DraftRequest& request = *prospect.request;
  const auto length_and_gain = [&](const Survival& survival) {
    std::pair<int32_t, double> result = {0, 0.0};
    for (int32_t i = 0; i < survival.size; ++i) {
      const bool chosen = i < depth && survival.probs[i] >= least_survival;
      if (!chosen && i >= request.min_tokens) break;
      result.second += survival.probs[i];
      ++result.first;
    }
    return result;
  };
  const auto [lookup_length, lookup_gain] = length_and_gain(prospect.lookup);
  const auto [draft_length, draft_gain] = length_and_gain(prospect.draft);
  *tokens += 1.0;
  DraftPlan plan;
  if (lookup_length > 0 && lookup_gain >= kLookupPreference * draft_gain) {
    plan.source = DraftSource::kLookup;
    plan.num_draft_tokens = lookup_length;
    plan.match_trust = request.match.trust;
    *tokens += lookup_gain;
  } else if (draft_length > 0) {
    plan.source = DraftSource::kDraft;
    plan.num_draft_tokens = draft_length;
    *tokens += draft_gain;
  }
  return plan;
}

DraftPlanner::StepPlan DraftPlanner::PlanAtDepth(const std::vector<Prospect>& prospects,
                                                 int32_t num_prefill_tokens, int32_t depth,
                                                 double least_survival) const {
  StepPlan step;
  double num_rows = num_prefill_tokens;
  int32_t num_drafting = 0;
  double longest = 0.0;
  for (const Prospect& prospect : prospects) {
    step.plans.push_back(PlanOne(prospect, depth, least_survival, &step.tokens));
    const DraftPlan& plan = step.plans.back();
    num_rows += 1;
    if (plan.source != DraftSource::kDraft) {
      num_rows += plan.num_draft_tokens;
      continue;
    }
    // As many as are expected; the one that ends a draft early is run too.
    const auto made = prospect.made.begin();
    const double num_made = std::accumulate(made, made + plan.num_draft_tokens, 0.0);
    num_rows += num_made;
    longest = std::max(longest, 1.0 + num_made - prospect.made[plan.num_draft_tokens - 1]);
    ++num_drafting;
    const int32_t num_missing = prospect.request->num_missing_tokens;
    step.seconds += (std::min(num_missing, kStepTokens) +
                     std::max(0, num_missing - kStepTokens) / kCatchUpSteps) *
                    costs_.DraftPrefillToken();
  }
  step.seconds +=
      Between(num_rows, [&](int32_t rows) { return costs_.Verify(rows); }) +
      Between(longest, [&](int32_t tokens) { return costs_.Propose(num_drafting, tokens); });
  return step;
}

std::string_view DraftPlanner::BypassReason(const DraftRequest& request) const {
  if (!request.allow_draft && !request.allow_lookup) return bypass::kOff;
  if (request.max_tokens == 0) return bypass::kLastToken;
  if (!request.allow_draft)
    return request.match.length > 0 ? bypass::kNotWorthIt : bypass::kNoMatch;
  if (!request.draft_unavailable.empty()) return request.draft_unavailable;
  return bypass::kNotWorthIt;
}

bool DraftPlanner::TryProbe(const DraftRequest& request, int32_t num_sequences,
                            DraftPlan* plan) const {
  const SequenceDraftState& state = *request.state;
  if (!IsAutomatic(request) || state.steps_until_probe > 0) return false;
  const bool by_lookup = request.allow_lookup && request.match.length > 0;
  const bool by_draft = request.allow_draft && request.draft_unavailable.empty();
  if (!by_lookup && !by_draft) return false;
  const int32_t length = std::min(kProbeTokens, request.max_tokens);
  double cost = costs_.Verify(num_sequences + length) - costs_.Verify(num_sequences);
  if (!by_lookup) {
    cost += costs_.Propose(1, length) + request.num_missing_tokens * costs_.DraftPrefillToken();
  }
  if (num_sequences * cost > state.balance) return false;
  plan->source = by_lookup ? DraftSource::kLookup : DraftSource::kDraft;
  plan->match_trust = request.match.trust;
  plan->num_draft_tokens = length;
  plan->probe = true;
  return true;
}

// The draft stops where one more token costs more time than it promises tokens.
float DraftPlanner::MinConfidence(int32_t num_sequences, double tokens_per_second) const {
  if (!costs_.knows_propose()) return 0.0f;
  const double propose = costs_.Propose(num_sequences, 2) - costs_.Propose(num_sequences, 1);
  const double row = (costs_.Verify(num_sequences + 4) - costs_.Verify(num_sequences)) / 4.0;
  const double break_even = tokens_per_second * (propose / num_sequences + row);
  return static_cast<float>(std::clamp(0.7 * break_even, 0.0, 0.5));
}

std::vector<DraftPlan> DraftPlanner::Plan(absl::Span<const DraftRequest> requests,
                                          int32_t num_prefill_tokens) {
  if (std::none_of(requests.begin(), requests.end(), MayDraft)) {
    std::vector<DraftPlan> plans;
    for (const DraftRequest& request : requests) plans.push_back({.reason = BypassReason(request)});
    return plans;
  }
  const int32_t num_sequences = static_cast<int32_t>(requests.size());
  const bool calibrating = !costs_.knows_verify() || steps_since_plain_ >= kCalibrationInterval;
  std::vector<Prospect> prospects;
  for (const DraftRequest& request : requests) {
    request.state->acceptance.SetPriors(acceptance_);
    if (costs_.knows_verify() && !request.state->has_account) {
      request.state->has_account = true;
      request.state->balance += StartingBalance() * costs_.Verify(num_sequences);
    }
    const bool plain = calibrating && IsAutomatic(request);
    prospects.push_back(plain ? Prospect{.request = &request, .draft = {}, .lookup = {}, .made = {}}
                              : ProspectOf(request, num_sequences));
  }
  if (!costs_.knows_verify()) {
    std::vector<DraftPlan> plans;
    double tokens = 0.0;
    for (const Prospect& prospect : prospects) {
      plans.push_back(PlanOne(prospect, kMaxDraftLength, 0.0, &tokens));
      if (plans.back().num_draft_tokens > 0) continue;
      plans.back().reason =
          IsAutomatic(*prospect.request) ? bypass::kCalibrating : BypassReason(*prospect.request);
    }
    return plans;
  }
  StepPlan best = PlanAtDepth(prospects, num_prefill_tokens, 0, 0.0);
  const double least_rate =
      (num_sequences > 1 ? kLeastGainTogether : 1.0) * best.tokens / best.seconds;
  for (int32_t depth = 1; depth <= kMaxDraftLength && !calibrating; ++depth) {
    for (const double least_survival : {0.0, 0.1, 0.25, 0.4, 0.6, 0.8, 0.9}) {
      StepPlan step = PlanAtDepth(prospects, num_prefill_tokens, depth, least_survival);
      if (step.tokens < least_rate * step.seconds) continue;
      if (step.tokens * best.seconds > best.tokens * step.seconds) best = std::move(step);
    }
  }
  const float min_confidence = MinConfidence(num_sequences, best.tokens / best.seconds);
  for (int32_t i = 0; i < num_sequences; ++i) {
    DraftPlan& plan = best.plans[i];
    const DraftRequest& request = requests[i];
    if (plan.num_draft_tokens > 0) {
      if (BreaksOff(request)) plan.min_confidence = min_confidence;
    } else if (calibrating && IsAutomatic(request)) {
      plan.reason = bypass::kCalibrating;
    } else if (!TryProbe(request, num_sequences, &plan)) {
      plan.reason = BypassReason(request);
    }
  }
  return std::move(best.plans);
}

}  // namespace tandem
