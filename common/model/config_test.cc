#include "common/model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/model/test_model.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<ModelConfig> ConfigOf(const TestModelOptions& options) {
  return ModelConfigFromGguf(*OpenTestModel(options));
}

// Leaves `key` out and puts another value in its place.
TestModelOptions With(const std::string& key, std::function<void(GgufWriter&)> add) {
  TestModelOptions options;
  options.left_out_keys = {key};
  options.more_metadata = std::move(add);
  return options;
}
TestModelOptions WithNumber(const std::string& key, int64_t value) {
  return With(key, [=](GgufWriter& writer) {
    writer.AddRaw("llama." + key, /*type=int64*/ 11,
                  std::string_view(reinterpret_cast<const char*>(&value), sizeof(value)));
  });
}
TestModelOptions WithReal(const std::string& key, float value) {
  return With(key, [=](GgufWriter& writer) { writer.AddFloat("llama." + key, value); });
}
TestModelOptions WithoutKey(const std::string& key) {
  return With(key, [](GgufWriter&) {});
}

void ExpectRefused(const TestModelOptions& options, const std::string& why) {
  const absl::Status status = ConfigOf(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << why << ": " << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(why));
}

TEST(ModelConfigTest, ReadsTheMetadata) {
  const auto file = OpenTestModel({.tied_head = false});
  const ModelConfig config = *ModelConfigFromGguf(*file);
  EXPECT_EQ(config.name, "test model");
  EXPECT_EQ(config.num_layers, 2);
  EXPECT_EQ(config.hidden_dim, 64);
  EXPECT_EQ(config.ffn_dim, 96);
  EXPECT_EQ(config.num_heads, 4);
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.rope_dim, 32);
  EXPECT_EQ(config.vocab_size, 77);
  EXPECT_EQ(config.context_length, 512);
  EXPECT_FLOAT_EQ(config.norm_epsilon, 1e-5f);
  EXPECT_FALSE(config.tied_head);
  EXPECT_TRUE(ConfigOf({})->tied_head);
  ASSERT_EQ(config.rope_inv_freq.size(), 16u);
  EXPECT_FLOAT_EQ(config.rope_inv_freq[0], 1.0f);
  EXPECT_FLOAT_EQ(config.rope_inv_freq[8], 0.01f);
}

TEST(ModelConfigTest, KeysThatHaveADefaultMayBeMissing) {
  TestModelOptions options = {.num_heads = 2, .num_kv_heads = 2};
  options.left_out_keys = {
      "attention.key_length", "attention.value_length",           "attention.head_count_kv",
      "rope.dimension_count", "attention.layer_norm_rms_epsilon", "rope.freq_base"};
  const ModelConfig config = *ConfigOf(options);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.rope_dim, 32);
  EXPECT_FLOAT_EQ(config.rope_theta, 10000.0f);
}

TEST(ModelConfigTest, LinearScalingDividesTheAngles) {
  const ModelConfig config = *ConfigOf(With("", [](GgufWriter& writer) {
    writer.AddString("llama.rope.scaling.type", "linear");
    writer.AddFloat("llama.rope.scaling.factor", 4.0f);
  }));
  EXPECT_FLOAT_EQ(config.rope_inv_freq[0], 0.25f);
  EXPECT_FLOAT_EQ(config.rope_inv_freq[8], 0.0025f);
}

TEST(ModelConfigTest, RopeFactorsDivideTheAngles) {
  TestModelOptions options;
  options.rope_factors.assign(16, 1.0f);
  options.rope_factors[8] = 32.0f;
  const ModelConfig config = *ConfigOf(options);
  EXPECT_FLOAT_EQ(config.rope_inv_freq[0], 1.0f);
  EXPECT_FLOAT_EQ(config.rope_inv_freq[8], 0.01f / 32.0f);
}

// The figures of Llama 3.2: factor 32, original context 8192, theta 500000. A wave of
// 2 pi positions is fast and stays; the slowest turns 32 times slower.
TEST(ModelConfigTest, Llama3ScalingFromItsNumbers) {
  TestModelOptions options = {.rope_theta = 500000.0f};
  options.more_metadata = [](GgufWriter& writer) {
    writer.AddString("llama.rope.scaling.type", "llama3");
    writer.AddFloat("llama.rope.scaling.factor", 32.0f);
    writer.AddUint32("llama.rope.scaling.original_context_length", 8192);
  };
  const ModelConfig config = *ConfigOf(options);
  const auto plain = [](int32_t i) { return std::pow(500000.0, -2.0 * i / 32); };
  EXPECT_FLOAT_EQ(config.rope_inv_freq[0], 1.0f);
  EXPECT_FLOAT_EQ(config.rope_inv_freq[15], static_cast<float>(plain(15) / 32));
  const double turns = 8192 * plain(8) / (2 * M_PI);  // 1.84: between 1 and 4
  const double blend = (turns - 1) / 3;
  EXPECT_NEAR(config.rope_inv_freq[8] / plain(8), (1 - blend) / 32 + blend, 1e-5);
}

TEST(ModelConfigTest, NumbersThatCannotBeAreRefused) {
  ExpectRefused(WithNumber("block_count", 0), "llama.block_count is 0, must be in [1, 1024]");
  ExpectRefused(WithNumber("block_count", int64_t{1} << 40), "llama.block_count is 1099511627776");
  ExpectRefused(WithReal("block_count", 2.0f), "'llama.block_count' is not an integer");
  ExpectRefused(WithNumber("embedding_length", -64), "llama.embedding_length is -64");
  ExpectRefused(WithNumber("feed_forward_length", 0), "llama.feed_forward_length is 0");
  ExpectRefused(WithNumber("attention.head_count", 0), "llama.attention.head_count is 0");
  ExpectRefused(WithNumber("attention.head_count_kv", 0), "llama.attention.head_count_kv is 0");
  ExpectRefused(WithNumber("attention.head_count_kv", 5), "head_count_kv is 5, must be in [1, 4]");
  ExpectRefused(WithNumber("attention.head_count_kv", 3), "4 query heads are not a multiple of 3");
  ExpectRefused(WithNumber("attention.key_length", 33), "values are 32 wide and keys 33");
  ExpectRefused({.head_dim = 16}, "heads are 16 wide");
  ExpectRefused(WithNumber("rope.dimension_count", 31), "dimension_count is 31, must be even");
  ExpectRefused(WithNumber("rope.dimension_count", 34), "dimension_count is 34, must be even");
  ExpectRefused(WithNumber("context_length", 0), "llama.context_length is 0");
  ExpectRefused(WithReal("rope.freq_base", 0.0f), "llama.rope.freq_base is 0");
  ExpectRefused(WithReal("rope.freq_base", std::nanf("")), "llama.rope.freq_base is nan");
  ExpectRefused(WithReal("rope.freq_base", 1e-44f), "angles that are not finite");
  ExpectRefused(WithReal("attention.layer_norm_rms_epsilon", -1.0f), "rms_epsilon is -1");
  ExpectRefused(WithoutKey("block_count"), "'llama.block_count' is missing");
  ExpectRefused(WithoutKey("context_length"), "'llama.context_length' is missing");
}

TEST(ModelConfigTest, HeadsThatDoNotDivideTheWidthAreRefused) {
  TestModelOptions options = {.num_heads = 3, .num_kv_heads = 3};
  options.left_out_keys = {"attention.key_length", "attention.value_length"};
  ExpectRefused(options, "llama.embedding_length 64 is not a multiple of 3 heads");
  options.num_heads = options.num_kv_heads = 128;  // more heads than columns
  ExpectRefused(options, "llama.embedding_length 64 is not a multiple of 128 heads");
}

TEST(ModelConfigTest, ModelsOfOtherKindsAreRefused) {
  ExpectRefused({.architecture = "gpt2"}, "the architecture is 'gpt2'; Tandem runs llama");
  ExpectRefused(WithNumber("expert_count", 8), "a mixture of 8 experts");
  ExpectRefused(
      With("", [](GgufWriter& w) { w.AddString("llama.rope.scaling.type", "yarn\n\x1b"); }),
      "llama.rope.scaling.type is 'yarn\?\?'; Tandem knows none, linear and llama3");
  ExpectRefused(With("", [](GgufWriter& w) { w.AddUint32("llama.rope.scaling.type", 1); }),
                "'llama.rope.scaling.type' is not a string");
  ExpectRefused(With("", [](GgufWriter& w) { w.AddString("llama.rope.scaling.type", "llama3"); }),
                "'llama.rope.scaling.factor' is missing");
}

TEST(ModelConfigTest, RopeFactorsThatDoNotFitAreRefused) {
  TestModelOptions options;
  options.rope_factors.assign(15, 1.0f);
  ExpectRefused(options, "rope_freqs.weight has 15 elements of F32, expected 16 of F32");
  options.rope_factors.assign(16, 1.0f);
  options.rope_factors[3] = 0.0f;
  ExpectRefused(options, "rope_freqs.weight[3] is 0, must be positive");
}

TEST(ModelConfigTest, VocabularyMustFitTheEmbedding) {
  ExpectRefused(WithNumber("vocab_size", 78), "llama.vocab_size is 78, but token_embd.weight has");
  ExpectRefused(With("",
                     [](GgufWriter& w) {
                       w.AddStrings("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b"});
                     }),
                "2 tokens, but 77 rows of token_embd.weight");
  TestModelOptions options;
  options.edit_tensor = [](TestTensor& tensor) { return tensor.name != "token_embd.weight"; };
  ExpectRefused(options, "no token_embd.weight: the file holds no model");
}

// Names go to logs, metrics and protos, which carry UTF-8 without control characters.
TEST(ModelConfigTest, NameIsMadeHarmless) {
  TestModelOptions options;
  options.name = std::string("a\x1b[2J\n\xff") + std::string(5000, 'x');
  const std::string name = ConfigOf(options)->name;
  EXPECT_EQ(name.substr(0, 8), "a?[2J??x");
  EXPECT_EQ(name.size(), 200u);
}

}  // namespace
}  // namespace tandem
