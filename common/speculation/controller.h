// How many tokens to draft for each sequence of a step, and from where.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "common/speculation/acceptance.h"
#include "common/speculation/lookup.h"
#include "common/speculation/step_costs.h"

namespace tandem {

enum class DraftSource : int8_t { kNone, kDraft, kLookup };

// Why a sequence ran without a draft: the values of a metric's label, never others.
namespace bypass {
inline constexpr std::string_view kOff = "off";                 // the request said so
inline constexpr std::string_view kDraftDown = "draft_down";    // the worker is away
inline constexpr std::string_view kCatchingUp = "catching_up";  // its cache is being filled
inline constexpr std::string_view kNoPages = "no_pages";        // none left for the draft
inline constexpr std::string_view kNoSlot = "no_slot";  // REJECTION: no place for draft_probs
inline constexpr std::string_view kNotWorthIt = "not_worth_it";     // slower than plain
inline constexpr std::string_view kNoMatch = "no_match";            // lookup only, nothing found
inline constexpr std::string_view kLastToken = "last_token";        // nothing to gain
inline constexpr std::string_view kNoRows = "no_rows";              // the step is full
inline constexpr std::string_view kCalibrating = "calibrating";     // measuring the plain step
inline constexpr std::string_view kNoDraft = "no_draft";            // the draft gave nothing
inline constexpr std::string_view kDraftFailed = "draft_failed";    // it refused this sequence
inline constexpr std::string_view kDraftContext = "draft_context";  // beyond the draft's context
inline constexpr std::string_view kOtherHalf = "other_half";        // its half is drafted for later
inline constexpr std::string_view kAll[] = {
    kOff,       kDraftDown, kCatchingUp,  kNoPages, kNoSlot,      kNotWorthIt,   kNoMatch,
    kLastToken, kNoRows,    kCalibrating, kNoDraft, kDraftFailed, kDraftContext, kOtherHalf};
}  // namespace bypass
inline constexpr std::string_view kProbe = "probe";  // drafted to see whether it pays again

// Acceptance of each source; lookups by how far the match is to be trusted.
class SourceAcceptance {
 public:
  // `memory`: of each estimate.
  explicit SourceAcceptance(double memory = kSequenceMemory);
  // `trust`: of a lookup.
  const AcceptanceEstimate& Of(DraftSource source, MatchTrust trust = {}) const;
  AcceptanceEstimate& Of(DraftSource source, MatchTrust trust = {});
  // How often the draft model goes on at a token, and does not break off for want of confidence.
  const AcceptanceEstimate& going_on() const { return going_on_; }
  AcceptanceEstimate& going_on() { return going_on_; }
  // Starts from what `all`, of every sequence, says.
  void SetPriors(const SourceAcceptance& all);

 private:
  AcceptanceEstimate draft_;
  std::array<AcceptanceEstimate, kNumMatchTrusts> lookups_;
  AcceptanceEstimate going_on_;
};

// What the planner remembers of one sequence.
struct SequenceDraftState {
  SourceAcceptance acceptance;
  // Seconds won by drafting less those lost, and an income of a small share of the time
  // spent: drafts that may not pay are made only while it is positive. So the loss of a
  // whole request is bounded by that share, whatever the acceptance.
  double balance = 0.0;
  bool has_account = false;
  int32_t steps_until_probe = 0;
  int32_t probe_interval = 0;
};

// One decoding sequence of the step to plan.
struct DraftRequest {
  SequenceDraftState* state = nullptr;
  bool allow_draft = true;
  bool allow_lookup = true;
  // Tokens to draft if there is a source. 0 and 0: speculation is off. Equal: exactly
  // that many. At most kMaxDraftLength, and what may still be committed less one.
  int32_t min_tokens = 0;
  int32_t max_tokens = kMaxDraftLength;
  PromptLookup::Match match;
  std::string_view draft_unavailable;  // a bypass reason; empty: the draft can propose
  int32_t num_missing_tokens = 0;      // that the draft has to run before it can propose
  bool greedy = true;
};

struct DraftPlan {
  DraftSource source = DraftSource::kNone;
  int32_t num_draft_tokens = 0;
  MatchTrust match_trust = MatchTrust::kShort;  // of a lookup
  float min_confidence = 0.0f;
  bool probe = false;
  std::string_view reason;  // a bypass reason when nothing is drafted
};

// Chooses the lengths of all sequences of a step together, for the most expected tokens in
// a second: sum of (1 + sum of survival probabilities) over propose + verify time. Looked-up
// drafts, which are free, come before the draft model's where they promise about as much.
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

  // Whether filling the draft's cache with `num_tokens` will pay over the
  // `remaining_tokens` that the sequence may still produce, in steps of `num_sequences` that
  // all draft: each of them is held up by it.
  bool WorthCatchingUp(const SequenceDraftState& state, int32_t num_tokens,
                       int32_t remaining_tokens, int32_t num_sequences) const;

  const SourceAcceptance& acceptance() const { return acceptance_; }

 private:
  // Drafts of several sequences promise at least so many times the tokens a second of a plain step:
  // of many plans the best looks better than it is, and they gain or lose little.
  static constexpr double kLeastGainTogether = 1.03;

  // Survival of each drafted token for one sequence and source, until it is not allowed.
  struct Survival {
    std::array<double, kMaxDraftLength> probs;
    int32_t size = 0;
  };
  struct Prospect {
    const DraftRequest* request;
    Survival draft;
    Survival lookup;
    // That the draft model makes so many tokens and more, if it is asked for them.
    std::array<double, kMaxDraftLength> made;
  };
  // A plan for the whole step, and what it promises.
  struct StepPlan {
    double tokens = 0.0;
    double seconds = 0.0;
    std::vector<DraftPlan> plans;
  };

  Prospect ProspectOf(const DraftRequest& request, int32_t num_sequences) const;
  static DraftPlan PlanOne(const Prospect& prospect, int32_t depth, double least_survival,
                           double* tokens);
  StepPlan PlanAtDepth(const std::vector<Prospect>& prospects, int32_t num_prefill_tokens,
                       int32_t depth, double least_survival) const;
  std::string_view BypassReason(const DraftRequest& request) const;
  bool TryProbe(const DraftRequest& request, int32_t num_sequences, DraftPlan* plan) const;
  double Confidence() const;
  double StartingBalance() const;
  double Overdraft() const;
  float MinConfidence(int32_t num_sequences, double tokens_per_second) const;

  StepCosts costs_;
  // Of all sequences: what one text was like shall not decide for all that come.
  SourceAcceptance acceptance_{/*memory=*/200.0};
  int32_t steps_since_plain_ = 0;
  double house_;  // see kHouseStart
};

}  // namespace tandem
