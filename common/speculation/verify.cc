#include "common/speculation/verify.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/speculation/philox.h"
#include "common/speculation/row_ops.h"
#include "common/speculation/truncation.h"

namespace tandem {
namespace {

// INVALID_ARGUMENT unless `draft_probs` is one distribution for each draft token.
absl::Status ValidateDraftProbs(absl::Span<const int32_t> draft_token_ids,
                                absl::Span<const SparseDistribution> draft_probs,
                                int32_t vocab_size) {
  constexpr double kSumTolerance = 1e-3;  // rounding of 256 floats is below 1e-4
  if (draft_probs.size() != draft_token_ids.size()) {
    return absl::InvalidArgumentError(absl::StrCat(draft_token_ids.size(), " draft tokens with ",
                                                   draft_probs.size(), " distributions"));
  }
  for (size_t i = 0; i < draft_probs.size(); ++i) {
    const SparseDistribution& q = draft_probs[i];
    const bool in_range = std::all_of(q.ids.begin(), q.ids.end(),
                                      [&](int32_t id) { return id >= 0 && id < vocab_size; });
    const bool positive =
        std::all_of(q.probs.begin(), q.probs.end(), [](float prob) { return prob >= 0.0f; });
    const double sum = std::accumulate(q.probs.begin(), q.probs.end(), 0.0);
    if (q.ids.size() != q.probs.size() || !in_range || !positive ||
        !(std::abs(sum - 1.0) < kSumTolerance)) {
      return absl::InvalidArgumentError(absl::StrCat("draft distribution ", i, " of ", q.ids.size(),
                                                     " ids is none over a vocabulary of ",
                                                     vocab_size, " (sum ", sum, ")"));
    }
  }
  return absl::OkStatus();
}

float ProbOf(const SparseDistribution& draft_probs, int32_t id) {
  for (size_t i = 0; i < draft_probs.ids.size(); ++i) {
    if (draft_probs.ids[i] == id) return draft_probs.probs[i];
  }
  return 0.0f;
}

// One row under REJECTION with a draft token: is it kept (true), or which token takes its
// place? `draft_probs` null: the draft was certain, q(draft_id) = 1.
struct RowDecision {
  bool accepted = false;
  int32_t token_id = -1;
};

absl::StatusOr<RowDecision> DecideByRejection(const TokenSampler& sampler, absl::Span<float> row,
                                              int32_t draft_id,
                                              const SparseDistribution* draft_probs,
                                              SamplerScratch* scratch) {
  RETURN_IF_ERROR(sampler.ToWeights(row, scratch));
  const absl::Span<float> weights = row.first(sampler.vocab_size());
  const double total = Sum(weights);
  const bool in_vocabulary = draft_id >= 0 && draft_id < sampler.vocab_size();
  const double p = in_vocabulary ? weights[draft_id] / total : 0.0;
  const double q = draft_probs == nullptr ? 1.0 : ProbOf(*draft_probs, draft_id);
  const uint64_t seed = sampler.params().seed;
  const int32_t position = sampler.length();
  if (UniformAt(seed, NoisePurpose::kAccept, position) * q < p) {
    return RowDecision{.accepted = true, .token_id = draft_id};
  }
  // norm(max(0, p - q)). A row where rounding leaves nothing of it has p = q: then a
  // rejection is a rounding error itself, and p is what is left to draw from.
  const double uniform = UniformAt(seed, NoisePurpose::kSample, position);
  const int32_t plain = SampleWeights(weights, uniform);
  if (draft_probs == nullptr) {
    if (in_vocabulary) weights[draft_id] = 0.0f;
  } else {
    for (size_t i = 0; i < draft_probs->ids.size(); ++i) {
      float& weight = weights[draft_probs->ids[i]];
      weight = std::max(0.0f, static_cast<float>(weight - draft_probs->probs[i] * total));
    }
  }
  const int32_t residual = SampleWeights(weights, uniform);
  return RowDecision{.accepted = false, .token_id = residual >= 0 ? residual : plain};
}

// The row's own token, not compared with a draft's.
absl::StatusOr<RowDecision> DecideBySampling(const TokenSampler& sampler, absl::Span<float> row,
                                             SamplerScratch* scratch) {
  ASSIGN_OR_RETURN(const int32_t token_id, sampler.Sample(row, scratch));
  return RowDecision{.token_id = token_id};
}

// `draft_probs` cut to the likeliest of scratch->candidates, and a token drawn from it.
Proposal ProposeBySampling(const TokenSampler& sampler, SparseDistribution* draft_probs,
                           SamplerScratch* scratch) {
  std::vector<TokenCandidate>& candidates = scratch->candidates;
  std::sort(candidates.begin(), candidates.end(), ComesBefore);
  draft_probs->ids.clear();
  draft_probs->probs.clear();
  const double total = SumWeights(candidates);
  for (const TokenCandidate& candidate : candidates) {
    draft_probs->ids.push_back(candidate.id);
    draft_probs->probs.push_back(
        static_cast<float>(std::exp(static_cast<double>(candidate.logit)) / total));
  }
  const int32_t choice =
      SampleWeights(draft_probs->probs,
                    UniformAt(sampler.params().seed, NoisePurpose::kPropose, sampler.length()));
  return {.token_id = draft_probs->ids[choice],
          .prob = draft_probs->probs[choice],
          .top_prob = draft_probs->probs[0]};
}

// Of a token that Sample chose from `row`, which it has processed.
void FillProbs(const TokenSampler& sampler, absl::Span<const float> row,
               const SamplerScratch& scratch, Proposal* proposal) {
  const int32_t best = ArgMax(row);
  const float max = row[best];
  const double total = !sampler.is_greedy() && sampler.truncates() ? SumWeights(scratch.candidates)
                                                                   : SumExp(row, max);
  proposal->top_prob = static_cast<float>(1.0 / total);
  proposal->prob = static_cast<float>(std::exp(row[proposal->token_id] - max) / total);
}

}  // namespace

absl::StatusOr<VerifyOutcome> VerifyDraft(TokenSampler* sampler, LogitsRow row,
                                          absl::Span<const int32_t> draft_token_ids,
                                          absl::Span<const SparseDistribution> draft_probs,
                                          SamplerScratch* scratch) {
  const auto none = [](int32_t) { return std::optional<RowCandidates>(); };
  return VerifyDraft(sampler, none, row, draft_token_ids, draft_probs, scratch);
}

absl::StatusOr<VerifyOutcome> VerifyDraft(TokenSampler* sampler, CandidatesOfRow candidates,
                                          LogitsRow row, absl::Span<const int32_t> draft_token_ids,
                                          absl::Span<const SparseDistribution> draft_probs,
                                          SamplerScratch* scratch) {
  const SamplingParams& params = sampler->params();
  const bool by_rejection = params.rule == AcceptanceRule::kRejection && !sampler->is_greedy();
  if (by_rejection && !draft_probs.empty()) {
    RETURN_IF_ERROR(ValidateDraftProbs(draft_token_ids, draft_probs, sampler->vocab_size()));
  }
  const int32_t length = sampler->length();
  const int32_t num_draft_tokens = static_cast<int32_t>(draft_token_ids.size());
  const bool asks_candidates = sampler->candidate_query().temperature > 0.0f;
  const auto choose = [&](int32_t i) {
    const auto found = asks_candidates ? candidates(i) : std::nullopt;
    return found ? sampler->SampleCandidates(*found, scratch) : std::nullopt;
  };
  VerifyOutcome outcome;
  for (int32_t i = 0; i <= num_draft_tokens; ++i) {
    const bool has_draft = i < num_draft_tokens;
    absl::StatusOr<RowDecision> decision = RowDecision{};
    std::vector<float> raw;
    if (const std::optional<CandidateChoice> choice = choose(i)) {
      decision->token_id = choice->token.id;
    } else {
      const absl::Span<float> logits = row(i);
      if (params.logprobs) {  // the choice overwrites the row
        raw.assign(logits.begin(), logits.begin() + sampler->vocab_size());
      }
      decision = by_rejection && has_draft
                     ? DecideByRejection(*sampler, logits, draft_token_ids[i],
                                         draft_probs.empty() ? nullptr : &draft_probs[i], scratch)
                     : DecideBySampling(*sampler, logits, scratch);
    }
    if (!decision.ok()) {
      sampler->Rewind(length);
      return decision.status();
    }
    if (!by_rejection) decision->accepted = has_draft && decision->token_id == draft_token_ids[i];
    if (params.logprobs) {
      outcome.logprobs.push_back(RawLogprob(raw, decision->token_id, params.top_logprobs));
    }
    if (!decision->accepted) {
      outcome.next_token_id = decision->token_id;
      break;
    }
    sampler->Append({decision->token_id});
    ++outcome.num_accepted;
  }
  return outcome;
}

std::optional<VerifyOutcome> VerifyGreatest(TokenSampler* sampler, GreatestId greatest,
                                            absl::Span<const int32_t> draft_token_ids) {
  const int32_t length = sampler->length();
  VerifyOutcome outcome;
  for (int32_t i = 0;; ++i) {
    const int32_t id = greatest(i);
    if (id < 0 || id >= sampler->num_ids()) {
      sampler->Rewind(length);
      return std::nullopt;
    }
    if (i == static_cast<int32_t>(draft_token_ids.size()) || draft_token_ids[i] != id) {
      outcome.next_token_id = id;
      return outcome;
    }
    sampler->Append({id});
    ++outcome.num_accepted;
  }
}

absl::StatusOr<Proposal> ProposeToken(TokenSampler* sampler, absl::Span<float> logits,
                                      bool with_prob, SparseDistribution* draft_probs,
                                      SamplerScratch* scratch) {
  Proposal proposal;
  if (sampler->params().rule == AcceptanceRule::kRejection && !sampler->is_greedy()) {
    TANDEM_CHECK(draft_probs != nullptr);
    ASSIGN_OR_RETURN(const absl::Span<float> row, sampler->ApplyPenalties(logits));
    RETURN_IF_ERROR(sampler->ApplyTemperature(row));
    sampler->Truncate(row, kMaxSparseIds, scratch);
    proposal = ProposeBySampling(*sampler, draft_probs, scratch);
  } else {
    ASSIGN_OR_RETURN(proposal.token_id, sampler->Sample(logits, scratch));
    if (with_prob) FillProbs(*sampler, logits.first(sampler->num_ids()), *scratch, &proposal);
  }
  sampler->Append({proposal.token_id});
  return proposal;
}

std::optional<Proposal> ProposeFromCandidates(TokenSampler* sampler, const RowCandidates& row,
                                              SamplerScratch* scratch) {
  const std::optional<CandidateChoice> choice = sampler->SampleCandidates(row, scratch);
  if (!choice.has_value()) return std::nullopt;
  const TokenCandidate& token = choice->token;
  sampler->Append({token.id});
  // Nearly all weight is kept where it is not known what else is.
  const double total = choice->knows_kept ? SumWeights(scratch->candidates) : row.exp_sum;
  return Proposal{.token_id = token.id,
                  .prob = static_cast<float>(std::exp(double{token.logit}) / total),
                  .top_prob = static_cast<float>(1.0 / total)};
}

}  // namespace tandem
