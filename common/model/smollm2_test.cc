// The real model against transformers in float32 (tools/make_logits_golden.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>

#include "common/base/check.h"
#include "common/kernels/cpu/packed_matrix.h"
#include "common/model/executor_driver.h"
#include "common/model/perplexity.h"
#include "common/model/test_model.h"

namespace tandem {
namespace {

// The file that tools/make_logits_golden.py wrote.
class Golden {
 public:
  Golden() : file_(GgufFile::Open("common/model/testdata/smollm2_golden.gguf")) {
    TANDEM_CHECK(file_.ok());
  }
  std::vector<int32_t> Ids(const std::string& key) const {
    const absl::StatusOr<std::vector<int64_t>> ids = (*file_)->GetInts(key);
    TANDEM_CHECK(ids.ok());
    return {ids->begin(), ids->end()};
  }
  std::vector<float> Floats(const std::string& key) const {
    const absl::StatusOr<std::vector<float>> values = (*file_)->GetFloats(key);
    TANDEM_CHECK(values.ok());
    return *values;
  }
  std::vector<float> Tensor(const std::string& name) const {
    const GgufTensor* tensor = (*file_)->FindTensor(name);
    TANDEM_CHECK(tensor != nullptr);
    std::vector<float> values(static_cast<size_t>(tensor->num_elements()));
    cpu::Dequantize(static_cast<cpu::SourceType>(tensor->dtype), tensor->data.data(),
                    tensor->num_elements(), values.data());
    return values;
  }

 private:
  absl::StatusOr<std::unique_ptr<GgufFile>> file_;
};

class SmolLm2Test : public ::testing::Test {
 protected:
  void SetUp() override {
    file_ = OpenSmolLm2();
    if (file_ == nullptr) {
      GTEST_SKIP() << "no SmolLM2: run tools/get_demo_model.py, or set TANDEM_TEST_MODEL";
    }
  }

  // Mean loss of the first windows of the book.
  double MeanLoss(KvType kv_type, int32_t window, int32_t num_windows) const {
    std::vector<int32_t> ids = golden_.Ids("alice.token_ids");
    ids.resize(static_cast<size_t>(window * num_windows));
    const auto executor = MakeTestExecutor(*file_, kv_type, /*num_threads=*/2, window);
    const auto result = MeasurePerplexity(*executor, ids, {.window_tokens = window}, nullptr);
    TANDEM_CHECK(result.ok());
    return std::log(result->perplexity);
  }

  std::unique_ptr<GgufFile> file_;
  Golden golden_;
};

struct TextComparison {
  std::vector<double> cosines;  // of each position, in ascending order
  int32_t num_same_top = 0;     // positions whose likeliest id is the same
};

// Runs a text of the golden. The cosines are over the ids that it samples.
TextComparison Compare(ExecutorDriver& driver, const Golden& golden, const std::string& text) {
  const std::vector<int32_t> sampled_ids = golden.Ids("sampled_ids");
  const std::vector<float> expected = golden.Tensor(text + ".logits");
  const std::vector<int32_t> top_ids = golden.Ids(text + ".top_ids");
  const LogitsRows rows = driver.RunInSteps(0, golden.Ids(text + ".token_ids"), {256});
  TANDEM_CHECK(rows.size() * sampled_ids.size() == expected.size());
  TextComparison comparison;
  for (size_t i = 0; i < rows.size(); ++i) {
    std::vector<float> sampled;
    for (const int32_t id : sampled_ids) sampled.push_back(rows[i][id]);
    const auto from = expected.begin() + static_cast<int64_t>(i * sampled_ids.size());
    const std::vector<double> row(from, from + static_cast<int64_t>(sampled_ids.size()));
    comparison.cosines.push_back(Cosine(sampled, row));
    const auto top = std::max_element(rows[i].begin(), rows[i].end()) - rows[i].begin();
    comparison.num_same_top += top == top_ids[i * 16];
  }
  std::sort(comparison.cosines.begin(), comparison.cosines.end());
  std::printf("%s: cosine at least %.6f, median %.6f; %d of %zu likeliest ids the same\n",
              text.c_str(), comparison.cosines.front(), comparison.cosines[rows.size() / 2],
              comparison.num_same_top, rows.size());
  return comparison;
}

// With the weights of the file as floats, every position is that of transformers.
TEST_F(SmolLm2Test, LogitsOfFloatWeightsAreThoseOfTransformers) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "100 thousand million products: too slow under sanitizers";
#endif
  ExecutorDriver driver(MakeTestExecutor(*file_, KvType::kF16, /*num_threads=*/2,
                                         /*max_positions=*/256, WeightPrecision::kFloat),
                        1);
  for (const std::string text : {"prose", "code", "chat"}) {
    const TextComparison comparison = Compare(driver, golden_, text);
    EXPECT_GT(comparison.cosines.front(), 0.9995) << text;
    EXPECT_GE(comparison.num_same_top, 254) << text;
  }
}

// Activations of 8 bits cost what they cost llama.cpp, which has them too: there the medians
// are 0.99967, 0.99988 and 0.99965, the worst positions 0.9957, 0.9841 and 0.9906.
TEST_F(SmolLm2Test, LogitsOfPackedWeightsAreNearThoseOfTransformers) {
  ExecutorDriver driver(MakeTestExecutor(*file_, KvType::kF16), 1);
  for (const std::string text : {"prose", "code", "chat"}) {
    const TextComparison comparison = Compare(driver, golden_, text);
    EXPECT_GT(comparison.cosines.front(), 0.97) << text;
    EXPECT_GT(comparison.cosines[128], 0.9995) << text;
    EXPECT_GE(comparison.num_same_top, 244) << text;
  }
}

// 4-bit KV may cost 3 % over f16 KV; 2.1 % was measured on these 510 tokens, and 3.1 % with
// llama.cpp's q4_0 KV.
TEST_F(SmolLm2Test, PerplexityIsThatOfTransformers) {
  const std::vector<float> losses = golden_.Floats("alice.window_512");
  const double expected = (losses[0] + losses[1]) / 2;
  const double f16 = MeanLoss(KvType::kF16, 512, 2);
  const double q4 = MeanLoss(KvType::k4, 512, 2);
  std::printf("perplexity: transformers %.4f, f16 KV %+.3f %%, 4-bit KV %+.3f %%\n",
              std::exp(expected), 100 * std::expm1(f16 - expected),
              100 * std::expm1(q4 - expected));
  EXPECT_NEAR(std::exp(f16 - expected), 1.0, 0.01);
  EXPECT_NEAR(std::exp(q4 - f16), 1.0, 0.03);
}

TEST_F(SmolLm2Test, RowsHaveTheSameBitsHoweverTheyAreGrouped) {
  const std::vector<int32_t> ids = golden_.Ids("prose.token_ids");
  const absl::Span<const int32_t> tokens = absl::MakeSpan(ids).subspan(0, 80);
  for (const KvType kv_type : {KvType::kF16, KvType::k8, KvType::k4}) {
    ExecutorDriver driver(MakeTestExecutor(*file_, kv_type), 3);
    const LogitsRows prefill = driver.RunInSteps(0, tokens, {80});
    const LogitsRows verify = driver.RunInSteps(1, tokens, {8, 5, 2});
    const LogitsRows decode = driver.RunInSteps(2, tokens, {48, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1});
    for (size_t i = 0; i < tokens.size(); ++i) {
      const size_t num_bytes = prefill[i].size() * sizeof(float);
      ASSERT_EQ(std::memcmp(verify[i].data(), prefill[i].data(), num_bytes), 0) << i;
      ASSERT_EQ(std::memcmp(decode[i].data(), prefill[i].data(), num_bytes), 0) << i;
    }
  }
}

}  // namespace
}  // namespace tandem
