// How many tokens to draft for each sequence of a step, and from where.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "common/speculation/draft_plan.h"
#include "common/speculation/prospect.h"
#include "common/speculation/step_costs.h"

namespace tandem {

// Chooses the lengths of all sequences of a step together, for the most expected tokens in
// a second: sum of (1 + sum of survival probabilities) over propose + verify time. Looked-up
// drafts, which are free, come before the draft model's where they promise about as much, and where
// the step does best without asking the draft model.
// Not thread-safe.
class DraftPlanner {
 public:
  DraftPlanner();

  // The measurements it plans by; the caller feeds them.
  StepCosts& costs() { return costs_; }
  const StepCosts& costs() const { return costs_; }

  // Plans in the order of `requests`. A step of `num_prefill_tokens` more rows makes
  // drafting cheaper by comparison: they count as rows of the verify.
  std::vector<DraftPlan> Plan(absl::Span<const DraftRequest> requests, int32_t num_prefill_tokens);

  // What became of a plan, for each decoding sequence of a finished step.
  struct Outcome {
    SequenceDraftState* state = nullptr;
    DraftPlan plan;
    int32_t num_draft_tokens = 0;  // verified
    int32_t num_accepted = 0;
  };
  void Record(absl::Span<const Outcome> outcomes);

  // Who a propose step worked for: the tokens run and drafted for a sequence.
  struct DraftWork {
    SequenceDraftState* state = nullptr;
    int32_t num_tokens = 0;
  };
  // The step waited `seconds` for the draft, catching up included: time lost to each of its
  // `num_sequences` decoding sequences, which those that the draft worked for pay.
  void RecordDraftTime(absl::Span<const DraftWork> work, int32_t num_sequences, double seconds);

  // Seconds of steps of so many sequences: plain, and when all draft so many tokens.
  struct StepPrices {
    int32_t num_sequences = 0;
    double plain = 0.0;
    std::array<double, kMaxDraftLength + 1> drafting = {};
    bool are_known = false;
    bool may_pay = false;  // drafts that are all accepted do
  };
  StepPrices PricesOf(int32_t num_sequences) const;
  // Whether filling the draft's cache with `num_tokens` will pay over the `remaining_tokens` that
  // the sequence may still produce, in steps of these prices: each of their sequences is held up by
  // it.
  bool WorthCatchingUp(const SequenceDraftState& state, int32_t num_tokens,
                       int32_t remaining_tokens, const StepPrices& prices) const;

  const SourceAcceptance& acceptance() const { return acceptance_; }

 private:
  // Drafts of several sequences promise at least so many times the tokens a second of a plain step:
  // of many plans the best looks better than it is, and the more sequences share a step the less
  // they gain, while planning and verifying take time that no plan counts.
  static constexpr double LeastGain(int32_t num_sequences) {
    if (num_sequences == 1) return 1.0;
    return 1.03 + 0.05 * std::clamp((num_sequences - 8) / 24.0, 0.0, 1.0);
  }

  // What a choice promises for the step.
  struct Promise {
    double tokens = 0.0;
    double seconds = 0.0;
    int32_t longest = 0;  // draft
  };

  double RowsCost(int32_t num_sequences, int32_t length) const;
  Prospect ProspectOf(const DraftRequest& request, int32_t num_sequences) const;
  Promise PromiseOf(const std::vector<Prospect>& prospects, const Choice& choice,
                    int32_t num_sequences, int32_t num_prefill_tokens) const;
  Choice BestChoice(const std::vector<Prospect>& prospects, int32_t num_sequences,
                    int32_t num_prefill_tokens, double* tokens_per_second) const;
  std::string_view BypassReason(const DraftRequest& request) const;
  bool TryProbe(const DraftRequest& request, int32_t num_sequences, int32_t num_rows,
                DraftPlan* plan) const;
  double Confidence(DraftSource source) const;
  double StartingBalance(DraftSource source) const;
  double Overdraft(DraftSource source) const;
  float MinConfidence(int32_t num_sequences, double tokens_per_second) const;

  StepCosts costs_;
  // Of all sequences: what one text was like shall not decide for all that come.
  SourceAcceptance acceptance_{/*memory=*/200.0};
  int32_t steps_since_plain_ = 0;
  PerSource house_;  // see kHouseStart
};

}  // namespace tandem
