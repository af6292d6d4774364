#include "common/model/perplexity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/model/executor_driver.h"
#include "common/model/reference_forward.h"
#include "common/model/test_model.h"

namespace tandem {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

// Written from llama.cpp's definition, not from the code: in each window of n tokens those
// at positions n / 2 + 1 .. n - 1 are scored, each from the logits of the one before.
double ExpectedMeanLoss(const GgufFile& file, std::vector<int32_t> tokens, int32_t window,
                        int32_t bos_id) {
  const ModelConfig config = *ModelConfigFromGguf(file);
  double sum = 0.0;
  int32_t count = 0;
  for (size_t start = 0; start + window <= tokens.size(); start += window) {
    if (bos_id >= 0) tokens[start] = bos_id;
    const auto chunk = absl::MakeSpan(tokens).subspan(start, window);
    const std::vector<double> logits = ReferenceForward(file, config, chunk);
    for (int32_t p = window / 2; p < window - 1; ++p) {
      const double* row = logits.data() + int64_t{p} * config.vocab_size;
      double total = 0.0;
      for (int32_t id = 0; id < config.vocab_size; ++id) total += std::exp(row[id]);
      sum += std::log(total) - row[chunk[p + 1]];
      ++count;
    }
  }
  return sum / count;
}

TEST(PerplexityTest, IsThatOfTheReferenceWhateverTheStepsAre) {
  const auto file = OpenTestModel({});
  const std::vector<int32_t> tokens = RandomTokens(75, 77, 11);  // 4 windows, and a rest
  const double expected = std::exp(ExpectedMeanLoss(*file, tokens, 18, -1));
  for (const int32_t max_rows : {1, 5, 64}) {
    auto executor = CreateCpuExecutor(
        *file, {.limits = {.max_step_tokens = 64, .max_logits_rows = max_rows, .max_positions = 32},
                .k_type = KvType::kF16,
                .v_type = KvType::kF16});
    ASSERT_TRUE(executor.ok());
    std::vector<std::pair<int32_t, int32_t>> progress;
    const auto result = MeasurePerplexity(**executor, tokens, {.window_tokens = 18},
                                          [&](int32_t done, int32_t total) {
                                            progress.push_back({done, total});
                                          });
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_NEAR(result->perplexity / expected, 1.0, 1e-3);
    EXPECT_EQ(result->num_windows, 4);
    EXPECT_EQ(result->num_scored, 4 * 8);
    EXPECT_GT(result->standard_error, 0.0);
    EXPECT_THAT(progress, ElementsAre(Pair(1, 4), Pair(2, 4), Pair(3, 4), Pair(4, 4)));
  }
}

TEST(PerplexityTest, BosTakesTheFirstPlaceOfEachWindow) {
  const auto file = OpenTestModel({});
  const std::vector<int32_t> tokens = RandomTokens(48, 77, 12);
  const auto executor = MakeTestExecutor(*file, KvType::kF16);
  const auto result =
      MeasurePerplexity(*executor, tokens, {.window_tokens = 16, .bos_id = 3}, nullptr);
  ASSERT_TRUE(result.ok());
  EXPECT_NEAR(std::log(result->perplexity), ExpectedMeanLoss(*file, tokens, 16, 3), 1e-3);
}

TEST(PerplexityTest, WindowsThatCannotBeAreRefused) {
  const auto file = OpenTestModel({});
  const auto executor = MakeTestExecutor(*file, KvType::kF16);
  const auto refusal = [&](int32_t num_tokens, int32_t window) {
    const auto result = MeasurePerplexity(*executor, RandomTokens(num_tokens, 77, 1),
                                          {.window_tokens = window}, nullptr);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(result.status().message());
  };
  EXPECT_THAT(refusal(31, 16), HasSubstr("31 tokens in windows of 16"));
  EXPECT_THAT(refusal(100, 7), HasSubstr("windows of 7"));
  EXPECT_THAT(refusal(1000, 400), HasSubstr("at most 320"));
  EXPECT_THAT(refusal(100, -5), HasSubstr("windows of -5"));
}

TEST(PerplexityTest, LogitsThatAreNotFiniteAreReported) {
  TestModelOptions options;
  options.edit_tensor = [](TestTensor& tensor) {
    if (tensor.name == "output_norm.weight") tensor.data[3] = tensor.data[2] = 0xff;  // NaN
    return true;
  };
  const auto file = OpenTestModel(options);
  const auto executor = MakeTestExecutor(*file, KvType::kF16);
  const auto result =
      MeasurePerplexity(*executor, RandomTokens(64, 77, 1), {.window_tokens = 16}, nullptr);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("not finite"));
}

}  // namespace
}  // namespace tandem
