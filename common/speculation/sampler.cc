#include "common/speculation/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/speculation/philox.h"
#include "common/speculation/row_ops.h"
#include "common/speculation/truncation.h"

namespace tandem {
namespace {

static_assert(kRowGroupSize == GumbelNoise::kGroupSize);

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kBanBias = -100.0f;

// Why a row has no maximum, or an infinite one.
absl::Status NothingToChoose(absl::Span<const float> row, int32_t position) {
  const bool finite =
      std::none_of(row.begin(), row.end(), [](float v) { return std::isnan(v) || v == kInfinity; });
  if (!finite) {
    return absl::InternalError(absl::StrCat("logits for position ", position, " are not finite"));
  }
  return absl::FailedPreconditionError(
      absl::StrCat("no token is left to choose for position ", position,
                   ": every id is banned; ban fewer in logit_bias"));
}

// Appends to `candidates` the values of at least `bound` that are above -infinity.
void Collect(absl::Span<const float> row, float bound, std::vector<TokenCandidate>* candidates) {
  const int32_t size = static_cast<int32_t>(row.size());
  const float lowest = std::max(bound, -std::numeric_limits<float>::max());
  for (int32_t id = 0; id < size; ++id) {
    if (row[id] >= lowest) candidates->push_back({.logit = row[id], .id = id});
  }
}

// Bans all others.
void KeepCandidates(absl::Span<const TokenCandidate> candidates, absl::Span<float> row) {
  std::fill(row.begin(), row.end(), -kInfinity);
  for (const TokenCandidate& candidate : candidates) row[candidate.id] = candidate.logit;
}

}  // namespace

TokenSampler::TokenSampler(SamplingParams params, int32_t vocab_size)
    : params_(std::move(params)),
      vocab_size_(vocab_size),
      num_ids_(params_.used_vocab_size > 0 ? std::min(params_.used_vocab_size, vocab_size)
                                           : vocab_size),
      has_penalties_(params_.repetition_penalty != 1.0f || params_.presence_penalty != 0.0f ||
                     params_.frequency_penalty != 0.0f) {
  TANDEM_CHECK(vocab_size > 0);
}

bool TokenSampler::takes_raw_logits() const {
  return !has_penalties_ && params_.logit_bias.empty() && !params_.logprobs;
}

bool TokenSampler::takes_greatest() const { return is_greedy() && takes_raw_logits() && may_end(); }

void TokenSampler::Append(absl::Span<const int32_t> token_ids) {
  for (const int32_t id : token_ids) {
    history_.push_back(id);
    Count(length() - 1, 1);
  }
}

void TokenSampler::Rewind(int32_t length) {
  TANDEM_CHECK(length >= 0 && length <= this->length());
  while (this->length() > length) {
    Count(this->length() - 1, -1);
    history_.pop_back();
  }
}

void TokenSampler::Count(int32_t position, int32_t by) {
  const int32_t id = history_[position];
  if (!has_penalties_ || id < 0 || id >= num_ids_) return;
  const auto counts = counts_.try_emplace(id).first;
  counts->second.all += by;
  if (position >= params_.prompt_tokens) counts->second.output += by;
  if (counts->second.all == 0) counts_.erase(counts);
}

bool TokenSampler::truncates() const {
  return params_.top_k > 0 || params_.top_p < 1.0f || params_.min_p > 0.0f;
}

absl::StatusOr<absl::Span<float>> TokenSampler::ApplyPenalties(absl::Span<float> logits) const {
  TANDEM_CHECK(static_cast<int32_t>(logits.size()) >= vocab_size_);
  const absl::Span<float> row = logits.first(num_ids_);
  for (const auto& [id, counts] : counts_) {
    float& logit = row[id];
    logit = logit > 0.0f ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
    if (counts.output > 0) {
      logit -= params_.presence_penalty + params_.frequency_penalty * counts.output;
    }
  }
  for (const auto& [id, bias] : params_.logit_bias) {
    if (id < 0 || id >= num_ids_) continue;
    row[id] = bias <= kBanBias ? -kInfinity : row[id] + bias;
  }
  if (!may_end()) {
    for (const int32_t id : params_.end_token_ids) {
      if (id >= 0 && id < num_ids_) row[id] = -kInfinity;
    }
  }
  return row;
}

absl::Status TokenSampler::ApplyTemperature(absl::Span<float> row) const {
  const int32_t best = ArgMax(row);
  if (best < 0 || row[best] == kInfinity) return NothingToChoose(row, length());
  ShiftAndScale(row, row[best], params_.temperature);
  return absl::OkStatus();
}

void TokenSampler::Truncate(absl::Span<const float> scaled, int32_t max_candidates,
                            SamplerScratch* scratch) const {
  std::vector<TokenCandidate>& candidates = scratch->candidates;
  candidates.clear();
  const int32_t top_k = params_.top_k > 0 || truncates() ? params_.top_k : max_candidates;
  const float min_p_bound = params_.min_p > 0.0f ? std::log(params_.min_p) : -kInfinity;
  double total = 0.0;  // of the weights that top_p is a share of
  if (top_k > 0) {
    GroupMaxima(scaled, &scratch->group_max);
    Collect(scaled, LowerBoundOfLargest(top_k, &scratch->group_max), &candidates);
    KeepTopK(top_k, &candidates);
    if (params_.top_p < 1.0f) total = SumWeights(candidates);
  } else if (params_.top_p < 1.0f) {
    // Ids of at most a share (1 - top_p) / size each are, together, less than what top_p
    // drops: none of them is kept. Half of it, for rounding.
    total = SumExp(scaled, 0.0f);
    const double least_weight = 0.5 * (1.0 - params_.top_p) * total / scaled.size();
    Collect(scaled, std::max(min_p_bound, static_cast<float>(std::log(least_weight))), &candidates);
  } else {
    Collect(scaled, min_p_bound, &candidates);
  }
  if (params_.top_p < 1.0f) KeepTopP(params_.top_p * total, scratch);
  if (params_.min_p > 0.0f) {
    std::erase_if(candidates, [&](const TokenCandidate& c) { return c.logit < min_p_bound; });
  }
  KeepTopK(max_candidates, &candidates);
  std::iter_swap(candidates.begin(),
                 std::min_element(candidates.begin(), candidates.end(), ComesBefore));
}

absl::Status TokenSampler::ToWeights(absl::Span<float> logits, SamplerScratch* scratch) const {
  ASSIGN_OR_RETURN(const absl::Span<float> row, ApplyPenalties(logits));
  RETURN_IF_ERROR(ApplyTemperature(row));
  if (truncates()) {
    Truncate(row, num_ids_, scratch);
    KeepCandidates(scratch->candidates, row);
  }
  ExpInPlace(row);
  std::fill(logits.begin() + num_ids_, logits.end(), 0.0f);
  return absl::OkStatus();
}

absl::StatusOr<int32_t> TokenSampler::Sample(absl::Span<float> logits,
                                             SamplerScratch* scratch) const {
  if (!is_greedy() && params_.rule == AcceptanceRule::kRejection) {
    RETURN_IF_ERROR(ToWeights(logits, scratch));
    return SampleWeights(logits.first(num_ids_),
                         UniformAt(params_.seed, NoisePurpose::kSample, length()));
  }
  ASSIGN_OR_RETURN(const absl::Span<float> row, ApplyPenalties(logits));
  if (is_greedy()) {
    const int32_t best = ArgMax(row);
    if (best < 0 || row[best] == kInfinity) return NothingToChoose(row, length());
    return best;
  }
  RETURN_IF_ERROR(ApplyTemperature(row));
  if (!truncates()) return SampleGumbel(row, scratch);
  Truncate(row, num_ids_, scratch);
  // Many ids are sooner looked through by groups.
  constexpr size_t kManyIds = 512;
  if (scratch->candidates.size() < kManyIds) return BestOf(scratch->candidates).id;
  KeepCandidates(scratch->candidates, row);
  return SampleGumbel(row, scratch);
}

int32_t TokenSampler::SampleGumbel(absl::Span<const float> scaled, SamplerScratch* scratch) const {
  const GumbelNoise noise(params_.seed, length());
  GroupMaxima(scaled, &scratch->group_max);
  // Starting from a likely winner lets nearly all groups be skipped.
  int32_t best_id = ArgMax(scaled);
  double best = scaled[best_id] + noise.At(best_id);
  for (size_t g = 0; g < scratch->group_max.size(); ++g) {
    const int32_t group_index = static_cast<int32_t>(g);
    const GumbelNoise::Group group = noise.GroupAt(group_index);
    if (scratch->group_max[g] + group.max_noise < best) continue;
    const int32_t first = group_index * kRowGroupSize;
    const int32_t last = std::min(first + kRowGroupSize, static_cast<int32_t>(scaled.size()));
    for (int32_t id = first; id < last; ++id) {
      if (scaled[id] + group.max_noise < best) continue;
      const double score = scaled[id] + noise.At(id, group);
      if (score > best || (score == best && id < best_id)) {
        best = score;
        best_id = id;
      }
    }
  }
  return best_id;
}

TokenCandidate TokenSampler::BestOf(absl::Span<const TokenCandidate> candidates) const {
  const GumbelNoise noise(params_.seed, length());
  TokenCandidate best = {.logit = 0.0f, .id = -1};
  double best_score = 0.0;
  for (const TokenCandidate& candidate : candidates) {
    const double score = candidate.logit + noise.At(candidate.id);
    if (best.id < 0 || score > best_score || (score == best_score && candidate.id < best.id)) {
      best = candidate;
      best_score = score;
    }
  }
  return best;
}

TokenLogprob RawLogprob(absl::Span<const float> logits, int32_t token_id, int32_t num_top) {
  TANDEM_CHECK(token_id >= 0 && token_id < static_cast<int32_t>(logits.size()));
  TokenLogprob result;
  const int32_t best = ArgMax(logits);
  if (best < 0) return result;
  const double log_sum = logits[best] + std::log(SumExp(logits, logits[best]));
  result.logprob = static_cast<float>(logits[token_id] - log_sum);
  if (num_top <= 0) return result;
  std::vector<float> group_max;
  GroupMaxima(logits, &group_max);
  std::vector<TokenCandidate> top;
  Collect(logits, LowerBoundOfLargest(num_top, &group_max), &top);
  KeepTopK(num_top, &top);
  std::sort(top.begin(), top.end(), ComesBefore);
  for (const TokenCandidate& c : top) {
    result.top.emplace_back(c.id, static_cast<float>(c.logit - log_sum));
  }
  return result;
}

}  // namespace tandem
