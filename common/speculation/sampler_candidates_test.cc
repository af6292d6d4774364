// The part of a row that decides gives the token of the whole row.
#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "common/speculation/reference_candidates.h"
#include "common/speculation/sampler.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

// How rows of a model look: few ids far above the others, or hardly any difference.
enum class RowKind { kPeaked, kSpread, kFlat, kTies };

std::vector<float> RandomRow(RowKind kind, int32_t size, std::mt19937* random) {
  std::normal_distribution<float> normal(0.0f, kind == RowKind::kFlat ? 0.3f : 2.5f);
  std::vector<float> row(size);
  for (float& logit : row) {
    logit = normal(*random);
    if (kind == RowKind::kTies) logit = std::round(logit);
  }
  if (kind != RowKind::kPeaked) return row;
  for (int32_t i = 0; i < 8; ++i) {
    row[(*random)() % row.size()] = 12.0f + std::uniform_real_distribution<float>(0, 8)(*random);
  }
  return row;
}

SamplingParams RandomParams(std::mt19937* random) {
  const auto uniform = [&](float a, float b) {
    return std::uniform_real_distribution<float>(a, b)(*random);
  };
  SamplingParams params{.temperature = uniform(0.1f, 2.0f), .seed = (*random)()};
  switch ((*random)() % 6) {
    case 0:
    case 1:
      return params;
    case 2:
      params.top_k = 1 + static_cast<int32_t>((*random)() % 100);
      return params;
    case 3:
      params.top_p = uniform(0.3f, 0.999f);
      return params;
    case 4:
      params.min_p = uniform(0.0f, 0.3f);
      return params;
    default:
      params.top_k = static_cast<int32_t>((*random)() % 60);
      params.top_p = uniform(0.5f, 1.0f);
      params.min_p = uniform(-0.1f, 0.1f);
      return params;
  }
}

struct Shares {
  int32_t num_rows = 0;
  int32_t num_decided = 0;
  double decided() const { return 1.0 * num_decided / num_rows; }
};

// Rows at random positions, the ids of a candidate list in any order.
Shares ExpectSameTokens(RowKind kind, std::vector<int32_t> sizes, int32_t num_trials,
                        uint32_t seed) {
  std::mt19937 random(seed);
  Shares shares;
  SamplerScratch scratch;
  for (int32_t trial = 0; trial < num_trials; ++trial) {
    const int32_t size = sizes[trial % sizes.size()];
    SamplingParams params = RandomParams(&random);
    if (trial % 4 == 0) params.used_vocab_size = std::max(1, size - 5);
    TokenSampler sampler(params, size);
    sampler.Append(std::vector<int32_t>(random() % 500, 0));
    std::vector<float> row = RandomRow(kind, size, &random);
    ReferenceCandidates found(row, sampler.candidate_query());
    std::shuffle(found.contenders.begin(), found.contenders.end(), random);
    std::shuffle(found.near.begin(), found.near.end(), random);
    const auto choice = sampler.SampleCandidates(found.view().value(), &scratch);
    ++shares.num_rows;
    if (!choice.has_value()) continue;
    ++shares.num_decided;
    const float scaled = (row[choice->token.id] - found.numbers.greatest) / params.temperature;
    EXPECT_EQ(choice->token.logit, scaled);
    EXPECT_EQ(choice->token.id, sampler.Sample(absl::MakeSpan(row), &scratch).value())
        << "trial " << trial << " of " << size << " ids, temperature " << params.temperature
        << " top_k " << params.top_k << " top_p " << params.top_p << " min_p " << params.min_p;
  }
  return shares;
}

const std::vector<int32_t> kLargeSizes = {20000, 3001, 8192, 640, 5555};
const std::vector<int32_t> kTinySizes = {1, 2, 5, 50, 63, 64, 65, 100, 129};

TEST(SampleCandidatesTest, PeakedRowsAreNearlyAlwaysDecidedAsTheWholeRowIs) {
  EXPECT_GT(ExpectSameTokens(RowKind::kPeaked, kLargeSizes, 4000, 1).decided(), 0.995);
}

TEST(SampleCandidatesTest, OtherRowsAreDecidedAsTheWholeRowIsOrNotAtAll) {
  EXPECT_GT(ExpectSameTokens(RowKind::kSpread, kLargeSizes, 3000, 2).decided(), 0.9);
  EXPECT_GT(ExpectSameTokens(RowKind::kTies, kLargeSizes, 2000, 3).decided(), 0.9);
  const Shares flat = ExpectSameTokens(RowKind::kFlat, kLargeSizes, 2000, 4);
  EXPECT_LT(flat.decided(), 0.8);  // more ids than there is room for
}

TEST(SampleCandidatesTest, TinyVocabulariesAreDecidedAsTheWholeRowIs) {
  for (const RowKind kind : {RowKind::kPeaked, RowKind::kSpread, RowKind::kFlat, RowKind::kTies}) {
    EXPECT_GT(ExpectSameTokens(kind, kTinySizes, 2000, 5).decided(), 0.95);
  }
}

// As large as real ones are, where noise reaches far below the greatest logit.
TEST(SampleCandidatesTest, ALargeVocabularyIsDecidedAsTheWholeRowIs) {
  EXPECT_GT(ExpectSameTokens(RowKind::kPeaked, {128256}, 60, 6).decided(), 0.98);
  EXPECT_GT(ExpectSameTokens(RowKind::kSpread, {128256}, 60, 7).decided(), 0.7);
}

TEST(SampleCandidatesTest, TopKBeyondWhatIsNearIsDecidedByNoise) {
  SamplerScratch scratch;
  int32_t num_decided = 0;
  for (int32_t position = 0; position < 500; ++position) {
    TokenSampler sampler({.temperature = 0.5f, .top_k = 40, .top_p = 0.9f, .seed = 3}, 4000);
    sampler.Append(std::vector<int32_t>(position, 0));
    std::vector<float> row(4000, 0.0f);
    for (int32_t id = 0; id < 10; ++id) row[id * 7] = 20.0f - 0.3f * static_cast<float>(id);
    const ReferenceCandidates found(row, sampler.candidate_query());
    ASSERT_LT(found.near.size(), 40u);
    const auto choice = sampler.SampleCandidates(found.view().value(), &scratch);
    if (!choice.has_value()) continue;
    ++num_decided;
    EXPECT_EQ(choice->token.id, sampler.Sample(absl::MakeSpan(row), &scratch).value());
  }
  EXPECT_GT(num_decided, 495);
}

TEST(SampleCandidatesTest, NothingIsAskedWhereTheWholeRowDecides) {
  const auto asks = [](const SamplingParams& params) {
    return TokenSampler(params, 50).candidate_query().temperature > 0.0f;
  };
  EXPECT_TRUE(asks({.temperature = 0.5f}));
  EXPECT_FALSE(asks({}));
  EXPECT_FALSE(asks({.temperature = 0.5f, .presence_penalty = 1.0f}));
  EXPECT_FALSE(asks({.temperature = 0.5f, .logit_bias = {{1, 2.0f}}}));
  EXPECT_FALSE(asks({.temperature = 0.5f, .rule = AcceptanceRule::kRejection}));
  EXPECT_FALSE(asks({.temperature = 0.5f, .logprobs = true}));
  EXPECT_FALSE(TokenSampler({.temperature = 0.5f}, 50).candidate_query().wants_near);
  EXPECT_TRUE(TokenSampler({.temperature = 0.5f, .top_k = 5}, 50).candidate_query().wants_near);
}

// A verify asks for all its rows at once, before it knows how many tokens come before them.
TEST(SampleCandidatesTest, EndIdsThatMayNotComeYetAreLeftToTheWholeRow) {
  TokenSampler sampler({.temperature = 1.0f, .prompt_tokens = 1, .min_tokens = 2}, 50);
  SamplerScratch scratch;
  std::mt19937 random(1);
  const std::vector<float> row = RandomRow(RowKind::kSpread, 50, &random);
  for (int32_t length = 0; length < 5; ++length) {
    const ReferenceCandidates found(row, sampler.candidate_query());
    EXPECT_EQ(sampler.SampleCandidates(found.view().value(), &scratch).has_value(), length >= 3);
    sampler.Append({4});
  }
}

}  // namespace
}  // namespace tandem
