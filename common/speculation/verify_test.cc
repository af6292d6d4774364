// Output with drafts equals output without, whatever the drafts are.
#include "common/speculation/verify.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "common/speculation/fake_language_model.h"
#include "common/speculation/reference_candidates.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

constexpr int32_t kVocab = 50;
constexpr int32_t kOutputTokens = 60;

SamplingParams RandomParams(std::mt19937* random, bool greedy) {
  const auto uniform = [&](float a, float b) {
    return std::uniform_real_distribution<float>(a, b)(*random);
  };
  SamplingParams params;
  params.seed = (*random)();
  params.prompt_tokens = 3;
  params.min_tokens = 10;
  params.end_token_ids = {1, 2};
  if (!greedy) {
    params.temperature = uniform(0.2f, 2.0f);
    if ((*random)() % 2 == 0) params.top_k = 1 + static_cast<int32_t>((*random)() % kVocab);
    if ((*random)() % 2 == 0) params.top_p = uniform(0.3f, 1.0f);
    if ((*random)() % 2 == 0) params.min_p = uniform(0.0f, 0.3f);
  }
  if ((*random)() % 2 == 0) params.repetition_penalty = uniform(0.8f, 2.0f);
  if ((*random)() % 2 == 0) params.presence_penalty = uniform(-1.0f, 2.0f);
  if ((*random)() % 2 == 0) params.frequency_penalty = uniform(-1.0f, 2.0f);
  if ((*random)() % 2 == 0) params.logit_bias = {{5, 2.0f}, {6, -100.0f}};
  if ((*random)() % 2 == 0) params.used_vocab_size = kVocab - 7;
  return params;
}

const std::vector<int32_t>& Prompt() {
  static const std::vector<int32_t>* const prompt = new std::vector<int32_t>{4, 8, 15};
  return *prompt;
}

// One token at a time, each by a sampler made for it alone.
std::vector<int32_t> PlainOutput(const SamplingParams& params) {
  const FakeLanguageModel target;
  std::vector<int32_t> tokens = Prompt();
  SamplerScratch scratch;
  for (int32_t i = 0; i < kOutputTokens; ++i) {
    TokenSampler sampler(params, kVocab);
    sampler.Append(tokens);
    std::vector<float> logits(kVocab);
    target.Logits(FakeLanguageModel::StateOf(tokens), absl::MakeSpan(logits));
    tokens.push_back(sampler.Sample(absl::MakeSpan(logits), &scratch).value());
  }
  return tokens;
}

// Drafts by another model with the target's noise, as a draft worker makes them.
std::vector<int32_t> DraftTokens(TokenSampler* drafter, const std::vector<int32_t>& tokens,
                                 const FakeLanguageModel& model, int32_t num_draft_tokens) {
  SamplerScratch scratch;
  std::vector<int32_t> drafts;
  uint64_t state = FakeLanguageModel::StateOf(tokens);
  drafter->Rewind(0);
  drafter->Append(tokens);
  for (int32_t i = 0; i < num_draft_tokens; ++i) {
    std::vector<float> logits(kVocab);
    model.Logits(state, absl::MakeSpan(logits));
    drafts.push_back(
        ProposeToken(drafter, absl::MakeSpan(logits), i % 2 == 0, nullptr, &scratch)->token_id);
    state = FakeLanguageModel::Extend(state, drafts.back());
  }
  return drafts;
}

struct SpeculativeRun {
  std::vector<int32_t> tokens;
  int32_t num_draft_tokens = 0;
  int32_t num_accepted = 0;
  int32_t num_rows_read = 0;
};

SpeculativeRun SpeculativeOutput(const SamplingParams& params, double agreement,
                                 bool knows_candidates, std::mt19937* random) {
  const FakeLanguageModel target;
  const FakeLanguageModel draft(/*salt=*/1, agreement);
  SpeculativeRun run{.tokens = Prompt()};
  TokenSampler sampler(params, kVocab);
  TokenSampler drafter(params, kVocab);
  sampler.Append(run.tokens);
  SamplerScratch scratch;
  while (static_cast<int32_t>(run.tokens.size()) < 3 + kOutputTokens) {
    const std::vector<int32_t> drafts =
        DraftTokens(&drafter, run.tokens, draft, static_cast<int32_t>((*random)() % 9));
    std::vector<float> logits(kVocab);
    const auto fill = [&](int32_t i) {
      std::vector<int32_t> history = run.tokens;
      history.insert(history.end(), drafts.begin(), drafts.begin() + i);
      target.Logits(FakeLanguageModel::StateOf(history), absl::MakeSpan(logits));
    };
    const auto row = [&](int32_t i) {
      ++run.num_rows_read;
      fill(i);
      return absl::MakeSpan(logits);
    };
    // A device is asked for all rows at once.
    const CandidateQuery query = sampler.candidate_query();
    std::optional<ReferenceCandidates> found;
    const auto candidates = [&](int32_t i) -> std::optional<RowCandidates> {
      if (!knows_candidates) return std::nullopt;
      fill(i);
      CandidateQuery query_of_row = query;
      query_of_row.position += i;
      return found.emplace(logits, query_of_row).view();
    };
    const VerifyOutcome outcome =
        VerifyDraft(&sampler, candidates, row, drafts, {}, &scratch).value();
    run.tokens.insert(run.tokens.end(), drafts.begin(), drafts.begin() + outcome.num_accepted);
    EXPECT_EQ(sampler.length(), static_cast<int32_t>(run.tokens.size()));
    run.tokens.push_back(outcome.next_token_id);
    sampler.Append({outcome.next_token_id});
    run.num_draft_tokens += static_cast<int32_t>(drafts.size());
    run.num_accepted += outcome.num_accepted;
  }
  run.tokens.resize(3 + kOutputTokens);
  return run;
}

TEST(VerifyDraftTest, OutputWithDraftsEqualsPlainOutputGreedyAndCoupled) {
  std::mt19937 random(1);
  for (int32_t trial = 0; trial < 300; ++trial) {
    const SamplingParams params = RandomParams(&random, /*greedy=*/trial % 3 == 0);
    const double agreement = (trial % 5) / 4.0;
    const SpeculativeRun run =
        SpeculativeOutput(params, agreement, /*knows_candidates=*/false, &random);
    ASSERT_EQ(run.tokens, PlainOutput(params)) << "trial " << trial;
    if (agreement == 1.0) {  // the same model with the same noise is always right
      EXPECT_EQ(run.num_accepted, run.num_draft_tokens);
    }
  }
}

// Rows are read where penalties or biases want it, and until ends may come.
TEST(VerifyDraftTest, OutputFromCandidatesEqualsThatFromRows) {
  std::mt19937 random(2);
  for (int32_t trial = 0; trial < 300; ++trial) {
    SamplingParams params = RandomParams(&random, /*greedy=*/false);
    const bool is_plain = trial % 3 != 0;
    if (is_plain) {
      params.repetition_penalty = 1.0f;
      params.presence_penalty = params.frequency_penalty = 0.0f;
      params.logit_bias.clear();
    }
    const SpeculativeRun run =
        SpeculativeOutput(params, /*agreement=*/0.7, /*knows_candidates=*/true, &random);
    ASSERT_EQ(run.tokens, PlainOutput(params)) << "trial " << trial;
    if (is_plain) {
      EXPECT_LE(run.num_rows_read, 12) << "trial " << trial;
    }
  }
}

TEST(VerifyGreatestTest, DecidesAsVerifyDraftDoes) {
  std::mt19937 random(3);
  const FakeLanguageModel target;
  SamplerScratch scratch;
  int32_t num_undecided = 0;
  for (int32_t trial = 0; trial < 300; ++trial) {
    SamplingParams params{.prompt_tokens = 3};
    if (trial % 2 == 0) params.used_vocab_size = kVocab - 7;
    TokenSampler sampler(params, kVocab);
    TokenSampler plain(params, kVocab);
    std::vector<int32_t> prompt = Prompt();
    prompt.push_back(static_cast<int32_t>(random() % kVocab));
    sampler.Append(prompt);
    plain.Append(prompt);
    ASSERT_TRUE(sampler.takes_greatest());
    TokenSampler drafter(params, kVocab);
    const std::vector<int32_t> drafts = DraftTokens(
        &drafter, prompt, FakeLanguageModel(/*salt=*/1, 0.7), static_cast<int32_t>(random() % 6));
    std::vector<std::vector<float>> rows(drafts.size() + 1, std::vector<float>(kVocab));
    std::vector<int32_t> history = prompt;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (i > 0) history.push_back(drafts[i - 1]);
      target.Logits(FakeLanguageModel::StateOf(history), absl::MakeSpan(rows[i]));
    }
    const auto greatest = [&](int32_t i) {
      return static_cast<int32_t>(std::max_element(rows[i].begin(), rows[i].end()) -
                                  rows[i].begin());
    };
    const auto actual = VerifyGreatest(&sampler, greatest, drafts);
    if (!actual.has_value()) {
      ++num_undecided;
      EXPECT_EQ(sampler.length(), 4);
      continue;
    }
    const auto row = [&](int32_t i) { return absl::MakeSpan(rows[i]); };
    const VerifyOutcome expected = VerifyDraft(&plain, row, drafts, {}, &scratch).value();
    EXPECT_EQ(actual->num_accepted, expected.num_accepted);
    EXPECT_EQ(actual->next_token_id, expected.next_token_id);
    EXPECT_EQ(sampler.length(), plain.length());
  }
  EXPECT_GT(num_undecided, 0);  // ids that may not be chosen
}

TEST(VerifyGreatestTest, IsForPlainGreedyOnly) {
  const auto takes = [](const SamplingParams& params) {
    TokenSampler sampler(params, kVocab);
    sampler.Append(Prompt());
    return sampler.takes_greatest();
  };
  EXPECT_TRUE(takes({.prompt_tokens = 3}));
  EXPECT_FALSE(takes({.temperature = 0.5f, .prompt_tokens = 3}));
  EXPECT_FALSE(takes({.presence_penalty = 1.0f, .prompt_tokens = 3}));
  EXPECT_FALSE(takes({.logit_bias = {{1, 2.0f}}, .prompt_tokens = 3}));
  EXPECT_FALSE(takes({.prompt_tokens = 3, .min_tokens = 1, .end_token_ids = {1}}));
  EXPECT_FALSE(takes({.prompt_tokens = 3, .logprobs = true}));
}

TEST(VerifyDraftTest, GreedyTiesAndUnderstandsRejectionAsGreedy) {
  SamplingParams params{.rule = AcceptanceRule::kRejection};
  TokenSampler sampler(params, 4);
  SamplerScratch scratch;
  std::vector<float> logits;
  const auto row = [&](int32_t) {
    logits = {0.0f, 2.0f, 2.0f, 1.0f};
    return absl::MakeSpan(logits);
  };
  const VerifyOutcome outcome = VerifyDraft(&sampler, row, {1, 1, 2, 1}, {}, &scratch).value();
  EXPECT_EQ(outcome.num_accepted, 2);
  EXPECT_EQ(outcome.next_token_id, 1);
}

TEST(VerifyDraftTest, LogprobsAreOfTheRawRowAtEveryCommittedToken) {
  SamplingParams params{.temperature = 0.7f, .top_k = 2, .repetition_penalty = 1.7f};
  params.logprobs = true;
  params.top_logprobs = 3;
  TokenSampler sampler(params, 4);
  SamplerScratch scratch;
  std::vector<float> logits;
  const auto row = [&](int32_t) {
    logits = {0.0f, 9.0f, 2.0f, 1.0f};
    return absl::MakeSpan(logits);
  };
  const VerifyOutcome outcome = VerifyDraft(&sampler, row, {1, 3}, {}, &scratch).value();
  ASSERT_EQ(outcome.num_accepted, 1);
  ASSERT_EQ(outcome.logprobs.size(), 2u);
  const double log_sum = std::log(std::exp(0.0) + std::exp(9.0) + std::exp(2.0) + std::exp(1.0));
  EXPECT_NEAR(outcome.logprobs[0].logprob, 9.0 - log_sum, 1e-5);
  ASSERT_EQ(outcome.logprobs[0].top.size(), 3u);
  EXPECT_EQ(outcome.logprobs[0].top[2].first, 3);
}

TEST(VerifyDraftTest, AnErrorLeavesTheHistoryAsItWas) {
  TokenSampler sampler({}, 2);
  sampler.Append({0, 1});
  SamplerScratch scratch;
  std::vector<float> logits;
  const auto row = [&](int32_t i) {
    logits = {1.0f, i == 0 ? 0.0f : std::numeric_limits<float>::infinity()};
    return absl::MakeSpan(logits);
  };
  EXPECT_EQ(VerifyDraft(&sampler, row, {0, 0}, {}, &scratch).status().code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(sampler.length(), 2);
}

TEST(ProposeTokenTest, ProbabilitiesAreOfTheDraftsOwnDistribution) {
  const double total = std::exp(1.0) + std::exp(3.0) + std::exp(2.0);
  SamplerScratch scratch;
  TokenSampler greedy({}, 3);
  std::vector<float> logits = {1.0f, 3.0f, 2.0f};
  Proposal proposal =
      ProposeToken(&greedy, absl::MakeSpan(logits), true, nullptr, &scratch).value();
  EXPECT_EQ(proposal.token_id, 1);
  EXPECT_NEAR(proposal.prob, std::exp(3.0) / total, 1e-6);
  EXPECT_EQ(greedy.length(), 1);
  for (int32_t seed = 0; seed < 20; ++seed) {
    SamplingParams params{.temperature = 0.5f, .top_k = 2, .seed = static_cast<uint64_t>(seed)};
    TokenSampler sampler(params, 3);
    logits = {1.0f, 3.0f, 2.0f};
    proposal = ProposeToken(&sampler, absl::MakeSpan(logits), true, nullptr, &scratch).value();
    const double top = 1.0 / (1.0 + std::exp(-2.0));
    EXPECT_NEAR(proposal.top_prob, top, 1e-6);
    EXPECT_NEAR(proposal.prob, proposal.token_id == 1 ? top : 1.0 - top, 1e-6);
  }
}

TEST(ProposeTokenTest, CandidatesGiveTheProposalOfTheRow) {
  SamplerScratch scratch;
  const FakeLanguageModel model;
  for (int32_t trial = 0; trial < 500; ++trial) {
    SamplingParams params{.temperature = 0.7f, .seed = static_cast<uint64_t>(trial)};
    if (trial % 2 == 0) params.top_k = 20;
    if (trial % 3 == 0) params.top_p = 0.8f;
    if (trial % 5 == 0) params.min_p = 0.1f;
    TokenSampler by_row(params, kVocab);
    TokenSampler by_candidates(params, kVocab);
    std::vector<float> logits(kVocab);
    model.Logits(trial, absl::MakeSpan(logits));
    const ReferenceCandidates found(logits, by_candidates.candidate_query());
    const auto actual =
        ProposeFromCandidates(&by_candidates, found.view().value(), &scratch).value();
    const Proposal expected =
        ProposeToken(&by_row, absl::MakeSpan(logits), true, nullptr, &scratch).value();
    EXPECT_EQ(actual.token_id, expected.token_id);
    EXPECT_NEAR(actual.prob, expected.prob, 1e-5);
    EXPECT_NEAR(actual.top_prob, expected.top_prob, 1e-5);
    EXPECT_EQ(by_candidates.length(), 1);
  }
}

}  // namespace
}  // namespace tandem
