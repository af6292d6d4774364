// Choosing from the part of a row that decides.
#include <algorithm>
#include <cmath>
#include <limits>

#include "common/base/check.h"
#include "common/speculation/row_ops.h"
#include "common/speculation/sampler.h"
#include "common/speculation/truncation.h"

namespace tandem {
namespace {

// A device sums up a row in float; how much more the sum may be.
constexpr double kSumRounding = 1.0 + 1e-5;

// Those of `ids` whose scaled logit, by the operations of ApplyTemperature, is at least
// `lowest`.
void Scale(std::span<const IdLogit> ids, float greatest, float temperature, float lowest,
           std::vector<TokenCandidate>* candidates) {
  candidates->clear();
  for (const IdLogit& c : ids) {
    const float scaled = (c.logit - greatest) / temperature;
    if (scaled >= lowest) candidates->push_back({.logit = scaled, .id = c.id});
  }
}

}  // namespace

CandidateQuery TokenSampler::candidate_query() const {
  if (is_greedy() || params_.rule != AcceptanceRule::kCoupled || !takes_raw_logits()) return {};
  return {.temperature = params_.temperature,
          .num_ids = num_ids_,
          .seed = params_.seed,
          .position = length(),
          .wants_near = truncates()};
}

bool TokenSampler::takes_noisiest() const {
  return candidate_query().temperature > 0.0f && may_end();
}

std::optional<CandidateChoice> TokenSampler::SampleCandidates(const RowCandidates& row,
                                                              SamplerScratch* scratch) const {
  TANDEM_CHECK(row.position == length());
  if (!may_end() || row.contenders.empty()) return std::nullopt;
  // Of those that min_p keeps; the likeliest is always one.
  const float lowest =
      params_.min_p > 0.0f ? std::log(params_.min_p) : -std::numeric_limits<float>::max();
  std::vector<TokenCandidate>& contenders = scratch->contenders;
  Scale(row.contenders, row.greatest, params_.temperature, lowest, &contenders);
  if (!truncates()) return CandidateChoice{.token = BestOf(contenders)};
  const std::optional<bool> keeps_others = TruncateNear(row, scratch);
  if (!keeps_others.has_value()) return std::nullopt;
  if (!*keeps_others) {
    // The kept are a beginning in the order of all choices: nobody after the last is kept.
    const std::vector<TokenCandidate>& kept = scratch->candidates;
    const TokenCandidate last = *std::max_element(kept.begin(), kept.end(), ComesBefore);
    std::erase_if(contenders, [&](const TokenCandidate& c) { return ComesBefore(last, c); });
    return CandidateChoice{.token = BestOf(contenders), .knows_kept = true};
  }
  // All that are near are kept: the winner of all, if it is near, wins among the kept too.
  const CandidateChoice winner = {.token = BestOf(contenders)};
  const bool is_kept =
      winner.token.logit >= -row.reach || (params_.top_k == 0 && params_.top_p >= 1.0f);
  return is_kept ? std::optional(winner) : std::nullopt;
}

std::optional<bool> TokenSampler::TruncateNear(const RowCandidates& row,
                                               SamplerScratch* scratch) const {
  std::vector<TokenCandidate>& candidates = scratch->candidates;
  Scale(row.near, row.greatest, params_.temperature, -row.reach, &candidates);
  bool keeps_others = true;
  // What top_p is a share of lies between these two.
  double least = row.exp_sum;
  double most = row.exp_sum;
  if (params_.top_k > 0) {
    keeps_others = static_cast<int32_t>(candidates.size()) < params_.top_k;
    KeepTopK(params_.top_k, &candidates);
    std::sort(candidates.begin(), candidates.end(), ComesBefore);  // one order of summing
    least = SumWeights(candidates);
    most = keeps_others ? std::max(least, row.exp_sum * kSumRounding) : least;
  }
  if (params_.top_p < 1.0f) {
    if (KeepTopP(params_.top_p * most, scratch)) keeps_others = false;
    const size_t count = candidates.size();
    if (least < most) KeepTopP(params_.top_p * least, scratch);
    if (candidates.size() != count) return std::nullopt;
  }
  if (params_.min_p > 0.0f) {
    const float lowest = std::log(params_.min_p);
    std::erase_if(candidates, [&](const TokenCandidate& c) { return c.logit < lowest; });
    keeps_others = keeps_others && lowest < -row.reach;
  }
  return keeps_others;
}

}  // namespace tandem
