// Whether what the draft has not read of a sequence is worth reading.
#include <algorithm>

#include "common/speculation/controller.h"

namespace tandem {
namespace {

// Texts differ much in how often drafts are accepted, and where the draft does not read a prompt
// nobody learns what this one is like. So it is taken to be better than the average by so much
// where nothing is known of it, as long as drafting pays on the whole.
constexpr double kHope = 0.1;

}  // namespace

DraftPlanner::StepPrices DraftPlanner::PricesOf(int32_t num_sequences) const {
  StepPrices prices = {.num_sequences = num_sequences};
  // What a draft's step takes is guessed until there was one: where not even that promises to pay
  // there never is, and its cache would be filled for nothing.
  prices.are_known = costs_.knows_verify();
  if (!prices.are_known) return prices;
  prices.plain = costs_.Verify(num_sequences);
  for (int32_t length = 1; length <= kMaxDraftLength; ++length) {
    prices.drafting[length] =
        costs_.Verify(num_sequences * (1 + length)) + costs_.Propose(num_sequences, length);
    prices.may_pay = prices.may_pay || (1 + length) * prices.plain >=
                                           LeastGain(num_sequences) * prices.drafting[length];
  }
  return prices;
}

bool DraftPlanner::WorthCatchingUp(const SequenceDraftState& state, int32_t num_tokens,
                                   int32_t remaining_tokens, const StepPrices& prices) const {
  constexpr int32_t kHorizon = 256;  // answers often end before they must
  if (!prices.are_known) return prices.num_sequences == 1;
  const double cost = prices.num_sequences * costs_.DraftPrefill(num_tokens);
  if (state.steps_until_probe <= 0 && state.balance.draft > cost) return true;
  if (!prices.may_pay) return false;
  const SourceAcceptance& known = state.has_account ? state.acceptance : acceptance_;
  const AcceptanceEstimate& estimate = known.Of(DraftSource::kDraft);
  const double hope = kHope * Confidence(DraftSource::kDraft) / prices.num_sequences *
                      (state.has_account ? estimate.PriorShare() : 1.0);
  double best_rate = 1.0 / prices.plain;
  double tokens = 1.0;
  double survives = 1.0;
  for (int32_t length = 1; length <= kMaxDraftLength; ++length) {
    survives *= std::min(1.0, estimate.Conditional(length - 1) + hope);
    tokens += survives;
    best_rate = std::max(best_rate, tokens / prices.drafting[length]);
  }
  // As a plan will have to.
  const bool pays = best_rate * prices.plain >= LeastGain(prices.num_sequences);
  const double saved =
      pays ? std::min(kHorizon, remaining_tokens) * (prices.plain - 1.0 / best_rate) : 0.0;
  return saved > cost;
}

}  // namespace tandem
