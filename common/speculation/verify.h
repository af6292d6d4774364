// Drafting and verification: which tokens of a draft are kept, and how they are made.
//
// Position convention: the token that will stand at position p uses the noise of p.
// p is the target's distribution, q the draft's, as in Leviathan et al. 2023.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/speculation/sampler.h"
#include "common/speculation/sampling_params.h"

namespace tandem {

struct VerifyOutcome {
  int32_t num_accepted = 0;            // drafts kept, before the first rejection
  int32_t next_token_id = -1;          // correction, or bonus when all were kept
  std::vector<TokenLogprob> logprobs;  // num_accepted + 1 when asked for, else none
};

// Row i of the target's logits, [vocab_size]: row 0 follows the last certain token, row
// i > 0 draft token i - 1. Asked for in order, each at most once; may be overwritten.
using LogitsRow = absl::FunctionRef<absl::Span<float>(int32_t row)>;

// What is at hand of row i, to the sampler's candidate_query(): looked at first, and row i
// only where that does not decide.
using CandidatesOfRow = absl::FunctionRef<std::optional<RowCandidates>(int32_t row)>;

// Decides over one sequence's draft; an empty one makes it a plain decode.
//
// COUPLED and greedy: the target chooses its own token at every position and keeps drafts
// while they are equal, so the output does not depend on them. REJECTION (Leviathan et
// al. 2023, algorithm 1): keeps draft token x with probability min(1, p(x) / q(x)); the
// correction is drawn from norm(max(0, p - q)), the bonus token from p.
//
// `sampler` has the history up to the last certain token; on return it also has the
// accepted drafts, but not next_token_id: that one comes back with the next step.
// `draft_probs`: under REJECTION what each draft token was sampled from; empty when drafts
// are certain guesses (looked up), then q is 1 at the draft token. Ignored otherwise.
// INVALID_ARGUMENT when draft_probs is neither empty nor as long as the draft, or not a
// distribution over the vocabulary; INTERNAL and FAILED_PRECONDITION as
// TokenSampler::Sample. After an error the history is as it was.
absl::StatusOr<VerifyOutcome> VerifyDraft(TokenSampler* sampler, LogitsRow row,
                                          absl::Span<const int32_t> draft_token_ids,
                                          absl::Span<const SparseDistribution> draft_probs,
                                          SamplerScratch* scratch);
absl::StatusOr<VerifyOutcome> VerifyDraft(TokenSampler* sampler, CandidatesOfRow candidates,
                                          LogitsRow row, absl::Span<const int32_t> draft_token_ids,
                                          absl::Span<const SparseDistribution> draft_probs,
                                          SamplerScratch* scratch);

// The id of the greatest logit of row i; -1 when the row itself has to be looked at.
using GreatestId = absl::FunctionRef<int32_t(int32_t row)>;

// VerifyDraft for a sampler that takes_greatest(), without the rows. No value, and the history
// as it was, when a greatest id cannot be chosen: then VerifyDraft decides.
std::optional<VerifyOutcome> VerifyGreatest(TokenSampler* sampler, GreatestId greatest,
                                            absl::Span<const int32_t> draft_token_ids);

struct Proposal {
  int32_t token_id = -1;
  // Probability of token_id, and of the likeliest id, under the draft's distribution; 0
  // unless asked for. To stop drafting early look at top_prob only, and drop this
  // proposal too: a decision that depends on which token was sampled would make
  // REJECTION inexact.
  float prob = 0.0f;
  float top_prob = 0.0f;
};

// The draft model's guess of the token at position sampler->length(), by the target's rule
// and noise; appended to the sampler's history. REJECTION with temperature > 0: sampled
// from the distribution cut to kMaxSparseIds, which is left in `draft_probs` (else may be
// null). `with_prob`: fill in the probabilities, which costs a pass over the row.
// Errors as TokenSampler::Sample.
absl::StatusOr<Proposal> ProposeToken(TokenSampler* sampler, absl::Span<float> logits,
                                      bool with_prob, SparseDistribution* draft_probs,
                                      SamplerScratch* scratch);

// The same without the row, with probabilities, from what candidate_query() asked for. No
// value, and the history as it was, when that does not decide.
std::optional<Proposal> ProposeFromCandidates(TokenSampler* sampler, const RowCandidates& row,
                                              SamplerScratch* scratch);

}  // namespace tandem
