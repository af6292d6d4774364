#include "common/speculation/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <vector>

#include "common/speculation/philox.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> RandomRow(int32_t size, uint32_t seed, bool with_ties = false) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> row(size);
  for (float& value : row) value = with_ties ? std::round(normal(random)) : normal(random);
  return row;
}

// The same steps over a fully sorted row in double, as the header describes them.
std::vector<int32_t> KeptIdsRef(const std::vector<float>& logits, const SamplingParams& params) {
  std::vector<int32_t> ids(logits.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  if (params.top_k > 0 && params.top_k < static_cast<int32_t>(ids.size())) {
    ids.resize(params.top_k);
  }
  const auto weight = [&](int32_t id) {
    return std::exp((static_cast<double>(logits[id]) - logits[ids[0]]) / params.temperature);
  };
  if (params.top_p < 1.0f) {
    double total = 0.0;
    for (const int32_t id : ids) total += weight(id);
    double sum = 0.0;
    size_t kept = 0;
    while (kept < ids.size() && sum < params.top_p * total) sum += weight(ids[kept++]);
    ids.resize(std::max<size_t>(kept, 1));
  }
  std::erase_if(ids, [&](int32_t id) { return weight(id) < params.min_p; });
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::vector<int32_t> KeptIds(std::vector<float> logits, const SamplingParams& params) {
  const TokenSampler sampler(params, static_cast<int32_t>(logits.size()));
  SamplerScratch scratch;
  EXPECT_TRUE(sampler.ApplyTemperature(absl::MakeSpan(logits)).ok());
  sampler.Truncate(logits, static_cast<int32_t>(logits.size()), &scratch);
  std::vector<int32_t> ids;
  for (const TokenCandidate& c : scratch.candidates) ids.push_back(c.id);
  EXPECT_EQ(scratch.candidates[0].logit, 0.0f);
  std::sort(ids.begin(), ids.end());
  return ids;
}

TEST(TokenSamplerTest, TruncationEqualsSortingEverything) {
  std::mt19937 random(1);
  for (int32_t trial = 0; trial < 600; ++trial) {
    const int32_t size = std::uniform_int_distribution<int32_t>(1, 1500)(random);
    const std::vector<float> row = RandomRow(size, trial, /*with_ties=*/trial % 3 == 0);
    SamplingParams params;
    params.temperature = std::vector<float>{0.3f, 1.0f, 2.5f}[trial % 3];
    if (trial % 2 == 0) params.top_k = std::uniform_int_distribution<int32_t>(1, 80)(random);
    if (trial % 5 < 3) params.top_p = std::uniform_real_distribution<float>(0.05f, 0.99f)(random);
    if (trial % 7 < 3) params.min_p = std::uniform_real_distribution<float>(0.001f, 0.5f)(random);
    ASSERT_EQ(KeptIds(row, params), KeptIdsRef(row, params)) << "trial " << trial;
  }
}

TEST(TokenSamplerTest, TopKOfOneIsGreedyAndTinyTopPToo) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const std::vector<float> row = RandomRow(300, seed, /*with_ties=*/true);
    const int32_t best =
        static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
    SamplingParams params{.temperature = 1.0f, .top_k = 1};
    EXPECT_EQ(KeptIds(row, params), std::vector<int32_t>{best});
    params = {.temperature = 1.0f, .top_p = 1e-6f};
    EXPECT_EQ(KeptIds(row, params), std::vector<int32_t>{best});
  }
}

int32_t SampleAt(const SamplingParams& params, std::vector<float> row, int32_t position) {
  TokenSampler sampler(params, static_cast<int32_t>(row.size()));
  sampler.Append(std::vector<int32_t>(position, 0));
  SamplerScratch scratch;
  return sampler.Sample(absl::MakeSpan(row), &scratch).value();
}

// Skipping groups must not change the winner: compared with the argmax over every id.
TEST(TokenSamplerTest, CoupledEqualsTheFullGumbelArgmax) {
  for (int32_t trial = 0; trial < 400; ++trial) {
    const int32_t size = 1 + trial * 7;
    const std::vector<float> row = RandomRow(size, trial);
    const SamplingParams params{.temperature = trial % 2 == 0 ? 1.0f : 8.0f,
                                .seed = static_cast<uint64_t>(trial)};
    const float max = *std::max_element(row.begin(), row.end());
    const GumbelNoise noise(params.seed, trial);
    int32_t expected = -1;
    double best = -kInfinity;
    for (int32_t id = 0; id < size; ++id) {
      const double score = (row[id] - max) / params.temperature + noise.At(id);
      if (score > best) {
        best = score;
        expected = id;
      }
    }
    ASSERT_EQ(SampleAt(params, row, trial), expected) << trial;
  }
}

double ChiSquare(const std::vector<int64_t>& counts, const std::vector<double>& probs) {
  double total = 0.0;
  for (const int64_t count : counts) total += static_cast<double>(count);
  double chi_square = 0.0;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (probs[i] == 0.0) {
      EXPECT_EQ(counts[i], 0) << i;
      continue;
    }
    const double expected = probs[i] * total;
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  return chi_square;
}

TEST(TokenSamplerTest, SampledFrequenciesAreTheTruncatedDistributionUnderBothRules) {
  const std::vector<float> row = {1.0f, 0.2f, -0.5f, 2.0f, 1.5f, -3.0f, 0.0f, 0.9f};
  for (const AcceptanceRule rule : {AcceptanceRule::kCoupled, AcceptanceRule::kRejection}) {
    for (const int32_t top_k : {0, 5}) {
      SamplingParams params{.temperature = 0.8f, .top_k = top_k, .rule = rule};
      params.seed = 99;
      const std::vector<int32_t> kept = KeptIdsRef(row, params);
      std::vector<double> probs(row.size(), 0.0);
      double total = 0.0;
      for (const int32_t id : kept) total += probs[id] = std::exp(row[id] / 0.8);
      for (double& prob : probs) prob /= total;
      std::vector<int64_t> counts(row.size(), 0);
      TokenSampler sampler(params, static_cast<int32_t>(row.size()));
      SamplerScratch scratch;
      for (int32_t position = 0; position < 20000; ++position) {
        std::vector<float> copy = row;
        ++counts[sampler.Sample(absl::MakeSpan(copy), &scratch).value()];
        sampler.Append({0});
      }
      EXPECT_LT(ChiSquare(counts, probs), 24.3);  // 7 degrees of freedom, p = 0.001
    }
  }
}

TEST(TokenSamplerTest, PenaltiesBiasAndBansAreAppliedInTheDocumentedOrder) {
  SamplingParams params;
  params.repetition_penalty = 2.0f;
  params.presence_penalty = 0.5f;
  params.frequency_penalty = 0.25f;
  params.logit_bias = {{0, 1.0f}, {4, -100.0f}, {77, 3.0f}, {-1, 3.0f}};
  params.prompt_tokens = 2;
  params.min_tokens = 4;
  params.end_token_ids = {5, 900};
  params.used_vocab_size = 7;
  TokenSampler sampler(params, 8);
  sampler.Append({0, 1, 1, 2, 1});  // prompt 0 1, output 1 2 1
  std::vector<float> row = {4.0f, 4.0f, -4.0f, 4.0f, 4.0f, 4.0f, 4.0f, 9.0f};
  const absl::Span<float> kept = sampler.ApplyPenalties(absl::MakeSpan(row)).value();
  EXPECT_EQ(std::vector<float>(kept.begin(), kept.end()),
            (std::vector<float>{2.0f + 1.0f, 2.0f - 0.5f - 0.5f, -8.0f - 0.5f - 0.25f, 4.0f,
                                -kInfinity, -kInfinity, 4.0f}));
  sampler.Append({3});  // the fourth output token: ends may come
  row.assign(8, 1.0f);
  EXPECT_EQ(sampler.ApplyPenalties(absl::MakeSpan(row)).value()[5], 1.0f);
}

TEST(TokenSamplerTest, RewindingRestoresThePenalties) {
  SamplingParams params{.repetition_penalty = 1.3f, .presence_penalty = 0.4f};
  params.frequency_penalty = 0.7f;
  params.prompt_tokens = 3;
  const std::vector<int32_t> tokens = {1, 2, 3, 1, 5, 5, 2, 9};
  TokenSampler walked(params, 10);
  walked.Append(tokens);
  for (int32_t length = 8; length >= 0; --length) {
    walked.Rewind(length);
    TokenSampler fresh(params, 10);
    fresh.Append(absl::MakeConstSpan(tokens).first(length));
    std::vector<float> a = RandomRow(10, 4);
    std::vector<float> b = a;
    ASSERT_TRUE(walked.ApplyPenalties(absl::MakeSpan(a)).ok());
    ASSERT_TRUE(fresh.ApplyPenalties(absl::MakeSpan(b)).ok());
    EXPECT_EQ(a, b) << length;
  }
}

TEST(TokenSamplerTest, RowsWithoutAChoiceAreErrors) {
  SamplerScratch scratch;
  for (const float temperature : {0.0f, 1.0f}) {
    for (const AcceptanceRule rule : {AcceptanceRule::kCoupled, AcceptanceRule::kRejection}) {
      SamplingParams params{.temperature = temperature, .rule = rule};
      params.logit_bias = {{0, -100.0f}, {1, -100.0f}};
      std::vector<float> row = {1.0f, 2.0f};
      EXPECT_EQ(TokenSampler(params, 2).Sample(absl::MakeSpan(row), &scratch).status().code(),
                absl::StatusCode::kFailedPrecondition);
      params.logit_bias = {};
      for (const float bad : {std::nanf(""), kInfinity}) {
        row = {bad, bad};
        EXPECT_EQ(TokenSampler(params, 2).Sample(absl::MakeSpan(row), &scratch).status().code(),
                  absl::StatusCode::kInternal);
      }
    }
  }
}

TEST(TokenSamplerTest, ExtremeTemperaturesStillChoose) {
  const std::vector<float> row = {1.0f, 3.0f, 2.0f};
  EXPECT_EQ(SampleAt({.temperature = 1e-30f}, row, 5), 1);
  EXPECT_GE(SampleAt({.temperature = 100.0f, .top_p = 0.9f}, row, 5), 0);
  EXPECT_GE(SampleAt({.temperature = 1e30f}, row, 5), 0);
}

TEST(RawLogprobTest, IsTheLogSoftmaxWithTheLikeliestInOrder) {
  const std::vector<float> row = RandomRow(5000, 8, /*with_ties=*/true);
  double total = 0.0;
  for (const float value : row) total += std::exp(static_cast<double>(value));
  std::vector<std::pair<float, int32_t>> order;
  for (int32_t id = 0; id < 5000; ++id) order.emplace_back(-row[id], id);
  std::sort(order.begin(), order.end());
  const TokenLogprob result = RawLogprob(row, 17, 20);
  EXPECT_NEAR(result.logprob, row[17] - std::log(total), 1e-5);
  ASSERT_EQ(result.top.size(), 20u);
  for (int32_t i = 0; i < 20; ++i) {
    EXPECT_EQ(result.top[i].first, order[i].second);
    EXPECT_NEAR(result.top[i].second, -order[i].first - std::log(total), 1e-5);
  }
}

}  // namespace
}  // namespace tandem
