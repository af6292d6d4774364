// From a row of logits to a token, for one sequence.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/kernels/row_candidates.h"
#include "common/speculation/sampling_params.h"

namespace tandem {

// An id that may still be chosen, with its processed logit (divided by temperature).
struct TokenCandidate {
  float logit;
  int32_t id;
};

struct WeightedCandidate {
  TokenCandidate candidate;
  float weight;  // exp(logit)
};

// What TokenSampler::SampleCandidates chose.
struct CandidateChoice {
  TokenCandidate token;
  bool knows_kept = false;  // scratch->candidates has what truncation keeps
};

// Memory for one row's work; one for each thread that samples, used for all sequences.
struct SamplerScratch {
  std::vector<TokenCandidate> candidates;
  std::vector<TokenCandidate> contenders;  // of RowCandidates
  std::vector<WeightedCandidate> weighted;
  std::vector<float> weights;
  std::vector<float> group_max;
};

// A distribution over few ids, as a draft hands it to the target. By falling
// probability; sums to 1.
struct SparseDistribution {
  std::vector<int32_t> ids;
  std::vector<float> probs;
};

// A draft's distribution is cut to its likeliest ids and renormalized: exact under
// REJECTION whatever the cut, since the target is told what was sampled from.
inline constexpr int32_t kMaxSparseIds = 256;

// Chooses the tokens of one sequence. The token chosen depends on the params, the
// history and the logits alone.
//
// A row of logits is processed in this order: ids that are never chosen (from
// used_vocab_size on; end ids before min_tokens) are banned; repetition penalty (tokens of
// prompt and output), presence and frequency penalty (of the output); logit_bias (-100 or
// less bans); temperature; then top_k, top_p of what top_k left, min_p of the likeliest.
// Equal logits are ordered by id, the lowest first. (Hugging Face's order.)
//
// Rows may be overwritten. Not thread-safe.
class TokenSampler {
 public:
  // Requires vocab_size > 0. Ids of the params outside the vocabulary are ignored.
  TokenSampler(SamplingParams params, int32_t vocab_size);

  const SamplingParams& params() const { return params_; }
  int32_t vocab_size() const { return vocab_size_; }
  // Ids from here on are never chosen.
  int32_t num_ids() const { return num_ids_; }

  // The history: prompt and output up to the token to be chosen, whose position is
  // therefore length(). A worker that is sent a step rewinds to its start_position
  // and appends its tokens; ids outside the vocabulary are kept and not counted.
  int32_t length() const { return static_cast<int32_t>(history_.size()); }
  void Append(absl::Span<const int32_t> token_ids);
  // Drops the tokens from `length` on. Requires 0 <= length <= length().
  void Rewind(int32_t length);

  // The token at position length(): argmax when temperature is 0; COUPLED: argmax of
  // logit + Gumbel noise keyed by (seed, position, id); REJECTION: a draw keyed by (seed,
  // position). `logits` is [vocab_size], overwritten. INTERNAL when the logits are not
  // finite, FAILED_PRECONDITION when no id is left to choose from.
  absl::StatusOr<int32_t> Sample(absl::Span<float> logits, SamplerScratch* scratch) const;

  // What to ask where rows are far away: for the token at position length(), and the next
  // ones by position. Nothing (temperature 0) when the choice needs whole rows.
  CandidateQuery candidate_query() const;

  // The token that Sample chooses, from what was asked at this length(). No value when
  // `row` does not prove it: then the whole row decides. The same for the same row, so that
  // output does not depend on drafts. Where a share of weights ends exactly at a token,
  // the rounding of exp_sum decides, which may not be that of Sample's own sum.
  std::optional<CandidateChoice> SampleCandidates(const RowCandidates& row,
                                                  SamplerScratch* scratch) const;

  // The steps of Sample, for verify.h and tests. Errors as Sample.

  // Bans, penalties and bias; touches only the ids concerned. Ids that are never chosen
  // are cut off: the rest of the row is returned.
  absl::StatusOr<absl::Span<float>> ApplyPenalties(absl::Span<float> logits) const;

  // Divides what ApplyPenalties returned by the temperature, relative to its maximum, so
  // that the likeliest is 0. Requires temperature > 0, as the next two do.
  absl::Status ApplyTemperature(absl::Span<float> row) const;

  // Leaves in scratch->candidates what top_k, top_p and min_p keep of a scaled row, at most
  // the `max_candidates` likeliest; the likeliest first, the others in no particular order.
  void Truncate(absl::Span<const float> scaled, int32_t max_candidates,
                SamplerScratch* scratch) const;

  // All three, then exp: the row becomes weights of the target's distribution, 0 for what
  // is never chosen. Not normalized.
  absl::Status ToWeights(absl::Span<float> logits, SamplerScratch* scratch) const;

  // Whether top_k, top_p or min_p may drop ids.
  bool truncates() const;
  bool is_greedy() const { return params_.temperature <= 0.0f; }
  // Whether, from here on, the choice is the greatest logit of the ids below num_ids(), and
  // nobody wants to know more of the row.
  bool takes_greatest() const;
  // Whether, from here on, it is what candidate_query() asks for: the greatest logit with noise
  // of what truncation keeps.
  bool takes_noisiest() const;

 private:
  struct Counts {
    int32_t all = 0;     // prompt and output
    int32_t output = 0;  // from prompt_tokens on
  };

  void Count(int32_t position, int32_t by);
  // Whether no logit is changed, but for end ids, and nobody wants to know of others.
  bool takes_raw_logits() const;
  // Whether min_tokens are there.
  bool may_end() const { return length() - params_.prompt_tokens >= params_.min_tokens; }
  // Leaves in scratch->candidates what truncation keeps of row.near, and says whether it
  // may keep others; then all that are near are kept, but for min_p. No value: it cannot be
  // told.
  std::optional<bool> TruncateNear(const RowCandidates& row, SamplerScratch* scratch) const;
  int32_t SampleGumbel(absl::Span<const float> scaled, SamplerScratch* scratch) const;
  // The winner of some ids, at least one.
  TokenCandidate BestOf(absl::Span<const TokenCandidate> candidates) const;

  SamplingParams params_;
  int32_t vocab_size_;
  int32_t num_ids_;
  bool has_penalties_;
  std::vector<int32_t> history_;
  absl::flat_hash_map<int32_t, Counts> counts_;  // only with penalties
};

// log softmax(logits)[token_id] of a raw row, before Sample overwrites it, and the
// num_top likeliest. Requires token_id inside the row.
TokenLogprob RawLogprob(absl::Span<const float> logits, int32_t token_id, int32_t num_top);

}  // namespace tandem
