// tools/inflate_model.py: the large shape computes what the small model does.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <string>

#include "common/base/check.h"
#include "common/gguf/gguf_test_file.h"
#include "common/model/executor_driver.h"
#include "common/model/test_model.h"

namespace tandem {
namespace {

constexpr char kPython[] = ".cache/venv/bin/python";

class InflatedModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (access(kPython, X_OK) != 0) GTEST_SKIP() << "no " << kPython << ": run scripts/setup";
  }

  // The model of `path` in the shape that `arguments` say.
  std::unique_ptr<GgufFile> Inflate(const std::string& path, const std::string& arguments) {
    const std::string out = path + ".inflated";
    const std::string command = std::string(kPython) + " tools/inflate_model.py '" + path +
                                "' --out '" + out + "' " + arguments + " >/dev/null";
    TANDEM_CHECK(system(command.c_str()) == 0);
    absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(out);
    unlink(out.c_str());
    TANDEM_CHECK(file.ok());
    return *std::move(file);
  }

  static LogitsRows LogitsOf(const GgufFile& file, const std::vector<int32_t>& ids) {
    ExecutorDriver driver(MakeTestExecutor(file, KvType::kF16, /*num_threads=*/2,
                                           /*max_positions=*/64, WeightPrecision::kFloat),
                          1);
    return driver.RunInSteps(0, ids, {static_cast<int32_t>(ids.size())});
  }

  // Largest difference of the logits of `ids`, both models unpacked to floats, and the
  // largest logit; those of ids that only the large one has must be 0.
  struct Difference {
    double largest = 0.0;
    double largest_logit = 0.0;
  };
  Difference Compare(const GgufFile& small, const GgufFile& large,
                     const std::vector<int32_t>& ids) {
    const LogitsRows expected = LogitsOf(small, ids);
    const LogitsRows actual = LogitsOf(large, ids);
    Difference difference;
    for (size_t row = 0; row < expected.size(); ++row) {
      for (size_t id = 0; id < actual[row].size(); ++id) {
        const double wanted = id < expected[row].size() ? double{expected[row][id]} : 0.0;
        if (id >= expected[row].size()) {
          EXPECT_EQ(actual[row][id], 0.0f) << id;
        }
        difference.largest = std::max(difference.largest, std::abs(actual[row][id] - wanted));
        difference.largest_logit = std::max(difference.largest_logit, std::abs(wanted));
      }
    }
    std::printf("largest difference %.2e at logits up to %.1f\n", difference.largest,
                difference.largest_logit);
    return difference;
  }
};

std::string TemporaryPath() {
  return testing::TempDir() + "/tandem_inflate_" + std::to_string(getpid()) + ".gguf";
}

// Wider heads, more of them, another share of query heads, more layers and a head of its own.
constexpr char kLargeShape[] =
    "--hidden 256 --layers 4 --heads 20 --kv-heads 4 --head-dim 64 --ffn 192 --vocab 101 ";

TEST_F(InflatedModelTest, FloatWeightsGiveTheSameLogits) {
  for (const bool tied : {true, false}) {
    for (const std::string padding : {"zero", "noise"}) {
      const TemporaryFile model(
          TemporaryPath(),
          TestModelBytes({.num_heads = 6, .num_kv_heads = 3, .head_dim = 32, .tied_head = tied}));
      const auto small = GgufFile::Open(model.path()).value();
      const auto large = Inflate(
          model.path(), std::string(kLargeShape) + "--layers-type f32 --embedding-type f32 " +
                            "--head-type f32 --no-tied --padding " + padding);
      const Difference difference = Compare(*small, *large, RandomTokens(40, 77, 3));
      EXPECT_GT(difference.largest_logit, 1.0);
      EXPECT_LT(difference.largest, 1e-4 * difference.largest_logit) << tied << padding;
    }
  }
}

// Codes are kept: what is left is the f16 rounding of the scales of Q.
TEST_F(InflatedModelTest, QuantizedWeightsKeepTheirCodes) {
  for (const DType type : {DType::kQ4_0, DType::kQ4_1, DType::kQ8_0}) {
    const TemporaryFile model(TemporaryPath(),
                              TestModelBytes({.num_heads = 6,
                                              .num_kv_heads = 3,
                                              .head_dim = 32,
                                              .weight_type = type,
                                              .embedding_type = DType::kQ8_0,
                                              .rope_factors = std::vector<float>(16, 2.0f)}));
    const auto small = GgufFile::Open(model.path()).value();
    const std::string name = DTypeName(type);
    const auto large = Inflate(model.path(), std::string(kLargeShape) + "--no-tied --layers-type " +
                                                 (name == "Q4_0"   ? "q4_0"
                                                  : name == "Q4_1" ? "q4_1"
                                                                   : "q8_0"));
    EXPECT_EQ(large->FindTensor("blk.3.ffn_up.weight")->dtype, type);
    const Difference difference = Compare(*small, *large, RandomTokens(40, 77, 5));
    EXPECT_LT(difference.largest, 5e-3 * difference.largest_logit) << name;
  }
}

// Every id has its row again; one that was left out that of them all.
TEST_F(InflatedModelTest, TrimmedDraftsGetAllTheirIds) {
  std::vector<int32_t> kept_ids(76);
  for (int32_t row = 0; row < 76; ++row) kept_ids[row] = 79 - row;
  TestModelOptions options = {.vocab_size = 77, .num_heads = 6, .num_kv_heads = 3, .head_dim = 32};
  options.more_metadata = [&](GgufWriter& writer) {
    writer.AddUint32("llama.vocab_size", 80);
    writer.AddInts("tandem.draft.kept_ids", kept_ids);
  };
  const TemporaryFile model(TemporaryPath(), TestModelBytes(options));
  const auto small = GgufFile::Open(model.path()).value();
  const auto large =
      Inflate(model.path(),
              std::string(kLargeShape) + "--layers-type f32 --embedding-type f32 --head-type f32");
  EXPECT_EQ(large->FindValue("tandem.draft.kept_ids"), nullptr);
  const std::vector<int32_t> tokens = {79, 4, 0, 30, 3, 60};  // 0 to 3 were left out
  const LogitsRows rows = LogitsOf(*large, tokens);
  const LogitsRows expected = LogitsOf(*small, tokens);
  for (size_t row = 0; row < tokens.size(); ++row) {
    for (const int32_t id : kept_ids) EXPECT_NEAR(rows[row][id], expected[row][id], 1e-3);
    EXPECT_EQ(rows[row][0], rows[row][3]);
  }
}

TEST_F(InflatedModelTest, ShapeThatCannotHoldTheModelIsRefused) {
  const TemporaryFile model(TemporaryPath(), TestModelBytes({}));
  for (const char* shape : {"--hidden 32", "--heads 5", "--kv-heads 1", "--head-dim 48",
                            "--vocab 50", "--layers 1", "--ffn 100"}) {
    const std::string command = std::string(kPython) + " tools/inflate_model.py '" + model.path() +
                                "' --out '" + model.path() + ".out' " + kLargeShape + shape +
                                " 2>/dev/null";
    EXPECT_EQ(WEXITSTATUS(system(command.c_str())), 1) << shape;
    EXPECT_NE(access((model.path() + ".out").c_str(), F_OK), 0) << shape;
  }
}

// The real model, 4-bit codes as they are, in a shape with heads of 128. With layers of f32,
// without that rounding, the largest difference was 9e-3 (K and V are f16), with codes 7e-2.
TEST_F(InflatedModelTest, RealModelSaysTheSame) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "too slow under sanitizers";
#endif
  const auto small = OpenSmolLm2();
  if (small == nullptr) GTEST_SKIP() << "no SmolLM2: run tools/get_demo_model.py";
  const std::string path = testing::TempDir() + "/tandem_inflate_smollm2";
  std::filesystem::create_symlink(std::filesystem::absolute(small->path()), path);
  const auto large = Inflate(
      path,
      "--hidden 768 --layers 31 --heads 12 --kv-heads 3 --head-dim 128 --ffn 1568 --vocab 49216 "
      "--no-tied --layers-type q4_1");
  unlink(path.c_str());
  const auto tokens = large->GetStrings("tokenizer.ggml.tokens");
  ASSERT_EQ(tokens->size(), 49216u);
  EXPECT_EQ((*tokens)[49152], "<|unused_0|>");
  const Difference difference = Compare(*small, *large, RandomTokens(24, 49152, 9));
  EXPECT_LT(difference.largest, 5e-3 * difference.largest_logit);
}

}  // namespace
}  // namespace tandem
