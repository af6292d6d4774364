// What is asked about one sequence of a step, and what is to be drafted for it.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "common/speculation/acceptance.h"
#include "common/speculation/lookup.h"

namespace tandem {

enum class DraftSource : int8_t { kNone, kDraft, kLookup };
inline constexpr DraftSource kDraftSources[] = {DraftSource::kDraft, DraftSource::kLookup};

// A number for each source, of any but kNone.
struct PerSource {
  double draft = 0.0;
  double lookup = 0.0;
  double& operator[](DraftSource source) { return source == DraftSource::kLookup ? lookup : draft; }
  double operator[](DraftSource source) const {
    return source == DraftSource::kLookup ? lookup : draft;
  }
};

// Why a sequence ran without a draft: the values of a metric's label, never others.
namespace bypass {
inline constexpr std::string_view kOff = "off";                      // the request said so
inline constexpr std::string_view kDraftDown = "draft_down";         // the worker is away
inline constexpr std::string_view kNoDraftModel = "no_draft_model";  // none is served
inline constexpr std::string_view kCatchingUp = "catching_up";       // its cache is being filled
inline constexpr std::string_view kNoPages = "no_pages";             // none left for the draft
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
inline constexpr std::string_view kAll[] = {kOff,         kDraftDown,    kNoDraftModel, kCatchingUp,
                                            kNoPages,     kNoSlot,       kNotWorthIt,   kNoMatch,
                                            kLastToken,   kNoRows,       kCalibrating,  kNoDraft,
                                            kDraftFailed, kDraftContext, kOtherHalf};
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
  // Of any token, by source.
  struct Rates {
    double draft = 0.0;
    std::array<double, kNumMatchTrusts> lookups = {};
    double going_on = 0.0;
  };
  Rates rates() const;
  // Starts from what `all`, of every sequence, says.
  void SetPriors(const Rates& all);

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
  // whole request is bounded by that share, whatever the acceptance. Each source has its own:
  // what the draft model's steps cost shall not end lookups, nor these pay for them.
  PerSource balance;
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
  PromptLookup::Match match;  // of a lookup
  float min_confidence = 0.0f;
  bool probe = false;
  std::string_view reason;  // a bypass reason when nothing is drafted
};

}  // namespace tandem
