// Under REJECTION every token is distributed as the target alone would have it: chi-square
// over many seeds, for drafts good, bad, certain and impossible.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "common/speculation/verify.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

constexpr int32_t kVocab = 6;
constexpr int32_t kTrials = 30000;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

using Row = std::array<float, kVocab>;

Row LogOf(const Row& probs) {
  Row logits;
  for (int32_t i = 0; i < kVocab; ++i) {
    logits[i] = probs[i] > 0.0f ? std::log(probs[i]) : -kInfinity;
  }
  return logits;
}

struct Case {
  const char* name;
  Row target_probs;
  Row draft_probs;
  int32_t top_k = 0;
  bool certain = false;  // looked up: draft token 2, no distribution
};

std::vector<Case> Cases() {
  const Row falling = {0.4f, 0.25f, 0.15f, 0.1f, 0.07f, 0.03f};
  const Row rising = {0.03f, 0.07f, 0.1f, 0.15f, 0.25f, 0.4f};
  const Row low = {0.5f, 0.3f, 0.2f, 0.0f, 0.0f, 0.0f};
  const Row high = {0.0f, 0.0f, 0.0f, 0.2f, 0.3f, 0.5f};
  return {{"equal", falling, falling},
          {"opposed", falling, rising},
          {"disjoint", low, high},
          {"target inside draft", low, falling},
          {"draft inside target", falling, low},
          {"truncated target and draft", falling, rising, 3},
          {"looked up", falling, {}, 0, true},
          {"looked up, truncated away", rising, {}, 2, true}};
}

// The first two tokens of a step of two drafts; row 1's target is row 0's reversed after
// an odd token, so that a wrong conditional shows. -1: the step ended after one.
struct TwoTokens {
  int32_t first;
  int32_t second;
};

Row TargetRow(const Case& c, int32_t previous) {
  Row row = c.target_probs;
  if (previous >= 0 && previous % 2 == 1) std::reverse(row.begin(), row.end());
  return LogOf(row);
}

// One speculative step, completed by a plain one where it stopped after one token.
TwoTokens RunOnce(const Case& c, const SamplingParams& params) {
  SamplerScratch scratch;
  TokenSampler drafter(params, kVocab);
  std::vector<SparseDistribution> draft_probs(c.certain ? 0 : 1);
  std::vector<int32_t> drafts = {2};
  if (!c.certain) {
    Row logits = LogOf(c.draft_probs);
    drafts[0] =
        ProposeToken(&drafter, absl::MakeSpan(logits), false, &draft_probs[0], &scratch)->token_id;
  }
  TokenSampler sampler(params, kVocab);
  Row logits;
  const auto row = [&](int32_t i) {
    logits = TargetRow(c, i == 0 ? -1 : drafts[0]);
    return absl::MakeSpan(logits);
  };
  const VerifyOutcome outcome = VerifyDraft(&sampler, row, drafts, draft_probs, &scratch).value();
  if (outcome.num_accepted == 1) return {drafts[0], outcome.next_token_id};
  sampler.Append({outcome.next_token_id});
  const auto plain_row = [&](int32_t) {
    logits = TargetRow(c, outcome.next_token_id);
    return absl::MakeSpan(logits);
  };
  return {outcome.next_token_id, VerifyDraft(&sampler, plain_row, {}, {}, &scratch)->next_token_id};
}

// The target's distribution of a row after top_k.
std::array<double, kVocab> TargetProbs(const Case& c, int32_t previous) {
  const Row logits = TargetRow(c, previous);
  std::array<double, kVocab> probs;
  double total = 0.0;
  for (int32_t i = 0; i < kVocab; ++i) {
    int32_t rank = 0;
    for (int32_t j = 0; j < kVocab; ++j) rank += logits[j] > logits[i] ? 1 : 0;
    probs[i] = c.top_k > 0 && rank >= c.top_k ? 0.0 : std::exp(logits[i]);
    total += probs[i];
  }
  for (double& prob : probs) prob /= total;
  return probs;
}

TEST(RejectionTest, PairsOfTokensAreDistributedAsTheTargetAlone) {
  for (const Case& c : Cases()) {
    std::map<std::pair<int32_t, int32_t>, int64_t> counts;
    SamplingParams params{.temperature = 1.0f, .top_k = c.top_k};
    params.rule = AcceptanceRule::kRejection;
    for (int32_t trial = 0; trial < kTrials; ++trial) {
      params.seed = 1000003u * static_cast<uint64_t>(trial);
      const TwoTokens tokens = RunOnce(c, params);
      ++counts[{tokens.first, tokens.second}];
    }
    double chi_square = 0.0;
    int32_t cells = 0;
    const std::array<double, kVocab> first = TargetProbs(c, -1);
    for (int32_t i = 0; i < kVocab; ++i) {
      const std::array<double, kVocab> second = TargetProbs(c, i);
      for (int32_t j = 0; j < kVocab; ++j) {
        const double expected = kTrials * first[i] * second[j];
        const double count = static_cast<double>(counts[{i, j}]);
        if (expected == 0.0) {
          EXPECT_EQ(count, 0.0) << c.name << " " << i << " " << j;
          continue;
        }
        chi_square += (count - expected) * (count - expected) / expected;
        ++cells;
      }
    }
    // Mean n, standard deviation sqrt(2 n): 3.5 of them above is p < 0.001 for n <= 35.
    const double freedom = cells - 1;
    EXPECT_LT(chi_square, freedom + 3.5 * std::sqrt(2.0 * freedom)) << c.name;
  }
}

// Fewer acceptances than sum of min(p, q) would waste the draft, without showing above.
TEST(RejectionTest, AcceptsAsOftenAsTheDistributionsOverlap) {
  const Case c = Cases()[1];
  SamplingParams params{.temperature = 1.0f, .rule = AcceptanceRule::kRejection};
  SamplerScratch scratch;
  int32_t accepted = 0;
  for (int32_t trial = 0; trial < kTrials; ++trial) {
    params.seed = trial;
    TokenSampler drafter(params, kVocab);
    std::vector<SparseDistribution> draft_probs(1);
    Row logits = LogOf(c.draft_probs);
    const int32_t draft =
        ProposeToken(&drafter, absl::MakeSpan(logits), false, &draft_probs[0], &scratch)->token_id;
    TokenSampler sampler(params, kVocab);
    const auto row = [&](int32_t) {
      logits = LogOf(c.target_probs);
      return absl::MakeSpan(logits);
    };
    accepted += VerifyDraft(&sampler, row, {draft}, draft_probs, &scratch)->num_accepted;
  }
  double overlap = 0.0;
  for (int32_t i = 0; i < kVocab; ++i) overlap += std::min(c.target_probs[i], c.draft_probs[i]);
  EXPECT_NEAR(1.0 * accepted / kTrials, overlap, 0.01);
}

TEST(RejectionTest, ACutDraftDistributionIsSortedAndSumsToOne) {
  SamplingParams params{.temperature = 1.0f, .rule = AcceptanceRule::kRejection};
  std::vector<float> logits(5000);
  for (int32_t i = 0; i < 5000; ++i) logits[i] = static_cast<float>((i * 37) % 1000) / 200.0f;
  TokenSampler sampler(params, 5000);
  SparseDistribution draft_probs;
  SamplerScratch scratch;
  ASSERT_TRUE(ProposeToken(&sampler, absl::MakeSpan(logits), true, &draft_probs, &scratch).ok());
  ASSERT_EQ(draft_probs.ids.size(), 256u);
  double sum = 0.0;
  for (size_t i = 0; i < 256; ++i) {
    sum += draft_probs.probs[i];
    EXPECT_LE(draft_probs.probs[i], draft_probs.probs[i == 0 ? 0 : i - 1]);
  }
  EXPECT_NEAR(sum, 1.0, 1e-5);
}

TEST(RejectionTest, MalformedDraftDistributionsAreRefused) {
  SamplingParams params{.temperature = 1.0f, .rule = AcceptanceRule::kRejection};
  TokenSampler sampler(params, kVocab);
  SamplerScratch scratch;
  Row logits = {};
  const auto row = [&](int32_t) { return absl::MakeSpan(logits); };
  const std::vector<std::vector<SparseDistribution>> malformed = {
      {{{0, 1}, {0.5f, 0.5f}}, {{0}, {1.0f}}},
      {{{0, 1}, {0.5f}}},
      {{{0, 6}, {0.5f, 0.5f}}},
      {{{0, -1}, {0.5f, 0.5f}}},
      {{{0, 1}, {0.5f, 0.2f}}},
      {{{0, 1}, {1.5f, -0.5f}}},
      {{{0, 1}, {std::nanf(""), 0.5f}}},
      {{{}, {}}}};
  for (const auto& draft_probs : malformed) {
    EXPECT_EQ(VerifyDraft(&sampler, row, {0}, draft_probs, &scratch).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace tandem
