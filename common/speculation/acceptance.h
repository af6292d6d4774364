// How often drafts are accepted, by position in the draft.
#pragma once

#include <array>
#include <cstdint>

#include "common/base/limits.h"

namespace tandem {

// Trials at a position that an estimate of one sequence remembers.
inline constexpr double kSequenceMemory = 20.0;

// Running estimate of P(draft token i is accepted | those before it were). A verify of
// which n were kept says n times yes, once no at token n if there was one, and nothing
// about the tokens after it: those are censored, not failures. Counts decay, so that it
// follows a change; with the usual memory within about 25 steps.
class AcceptanceEstimate {
 public:
  // `prior_rate` in [0, 1] is what it starts from; `memory`: trials at a position it remembers.
  explicit AcceptanceEstimate(double prior_rate, double memory = kSequenceMemory)
      : prior_rate_(prior_rate), decay_(1.0 - 1.0 / memory) {}

  void Record(int32_t num_draft_tokens, int32_t num_accepted);
  // Makes what was recorded count less, as when nothing was for long.
  void Fade(double factor);

  // Of any position, the prior included.
  double rate() const;
  // Of one position: few observations there lean on rate().
  double Conditional(int32_t index) const;
  // How much of rate() is the prior, in [0, 1].
  double PriorShare() const;
  // What another estimate, of all sequences, says now.
  void set_prior_rate(double prior_rate) { prior_rate_ = prior_rate; }

 private:
  double prior_rate_;
  double decay_;
  std::array<double, kMaxDraftLength> accepted_ = {};
  std::array<double, kMaxDraftLength> tried_ = {};
  double all_accepted_ = 0.0;  // their sums: a plan asks for them often
  double all_tried_ = 0.0;
};

}  // namespace tandem
