#include "common/model/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "common/model/test_model.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::vector<TensorPlan>> PlanOf(const TestModelOptions& options) {
  const auto file = OpenTestModel(options);
  const absl::StatusOr<ModelConfig> config = ModelConfigFromGguf(*file);
  if (!config.ok()) return config.status();
  return PlanWeights(*file, *config);
}

// Planning and loading must refuse alike: the first is shown before the second is tried.
void ExpectRefused(const TestModelOptions& options, const std::string& why) {
  const auto file = OpenTestModel(options);
  const ModelConfig config = *ModelConfigFromGguf(*file);
  cpu::ThreadPool pool(1);
  for (const absl::Status& status :
       {PlanWeights(*file, config).status(), LoadWeights(*file, config, pool, nullptr).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << why << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why));
  }
}

TestModelOptions Editing(const std::string& name, std::function<bool(TestTensor&)> edit) {
  TestModelOptions options;
  options.edit_tensor = [=](TestTensor& tensor) { return tensor.name != name || edit(tensor); };
  return options;
}

void Resize(TestTensor& tensor, std::vector<int64_t> dims) {
  int64_t count = 1;
  for (const int64_t dim : dims) count *= dim;
  tensor.dims = std::move(dims);
  const DTypeBlock block = BlockOf(tensor.dtype);
  tensor.data.resize(static_cast<size_t>(count / block.elements * block.bytes));
}

TEST(WeightsTest, PlanTellsTheBytesThatLoadingTakes) {
  for (const DType type :
       {DType::kF32, DType::kBF16, DType::kQ8_0, DType::kQ4_1, DType::kQ4_K, DType::kQ6_K}) {
    const auto file = OpenTestModel({.hidden_dim = 256,
                                     .ffn_dim = 256,
                                     .num_heads = 8,
                                     .tied_head = false,
                                     .weight_type = type});
    const ModelConfig config = *ModelConfigFromGguf(*file);
    int64_t planned_bytes = 0;
    int64_t stored_bytes = 0;
    const absl::StatusOr<std::vector<TensorPlan>> plans = PlanWeights(*file, config);
    ASSERT_TRUE(plans.ok());
    for (const TensorPlan& plan : *plans) {
      planned_bytes += plan.packed_bytes;
      stored_bytes += plan.stored_bytes;
    }
    cpu::ThreadPool pool(2);
    std::vector<int64_t> done;
    const auto weights = LoadWeights(*file, config, pool, [&](int64_t bytes, int64_t total) {
      done.push_back(bytes);
      EXPECT_EQ(total, stored_bytes);
    });
    ASSERT_TRUE(weights.ok());
    EXPECT_EQ(weights->num_bytes, planned_bytes);
    EXPECT_EQ(weights->layers[0].q.lossless, (*plans)[2].lossless);
    EXPECT_EQ(weights->layers[0].q.format, (*plans)[2].packed);
    EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
    EXPECT_EQ(done.back(), stored_bytes);
  }
}

TEST(WeightsTest, PlanSaysWhatIsKeptExactly) {
  const auto plans = PlanOf({.hidden_dim = 256,
                             .ffn_dim = 256,
                             .num_heads = 8,
                             .weight_type = DType::kQ6_K,
                             .embedding_type = DType::kQ4_0});
  ASSERT_TRUE(plans.ok());
  EXPECT_EQ(plans->front().name, "token_embd.weight");
  EXPECT_EQ(plans->front().packed, cpu::PackedFormat::kQ4Symmetric);
  EXPECT_TRUE(plans->front().lossless);
  EXPECT_EQ((*plans)[1].name, "blk.0.attn_norm.weight");
  EXPECT_EQ((*plans)[1].packed, cpu::PackedFormat::kF32);
  EXPECT_EQ((*plans)[2].name, "blk.0.attn_q.weight");
  EXPECT_EQ((*plans)[2].packed, cpu::PackedFormat::kQ8);
  EXPECT_FALSE((*plans)[2].lossless);
  EXPECT_EQ(plans->size(), 2u + 2 * 9);
}

TEST(WeightsTest, MissingTensorIsNamed) {
  for (const char* name : {"blk.1.attn_q.weight", "blk.0.ffn_norm.weight", "output_norm.weight"}) {
    ExpectRefused(Editing(name, [](TestTensor&) { return false; }),
                  std::string("tensor ") + name + " is missing");
  }
}

TEST(WeightsTest, WrongShapeIsNamedWithTheExpectedOne) {
  const auto reshaped = [](const std::string& name, std::vector<int64_t> dims) {
    return Editing(name, [=](TestTensor& tensor) { return Resize(tensor, dims), true; });
  };
  ExpectRefused(reshaped("blk.0.attn_k.weight", {64, 32}),
                "blk.0.attn_k.weight is 64 x 32, expected 64 x 64");
  ExpectRefused(reshaped("blk.1.ffn_down.weight", {64, 96}),
                "blk.1.ffn_down.weight is 64 x 96, expected 96 x 64");
  ExpectRefused(reshaped("blk.1.ffn_up.weight", {64, 48, 2}),
                "blk.1.ffn_up.weight is 64 x 48 x 2, expected 64 x 96");
  ExpectRefused(reshaped("output_norm.weight", {32}), "output_norm.weight is 32, expected 64");
  ExpectRefused(reshaped("output_norm.weight", {64, 1, 2}), "output_norm.weight is 64 x 1 x 2");
}

TEST(WeightsTest, BiasesAndUnknownTensorsAreRefused) {
  const auto renamed = [](const std::string& to) {
    TestModelOptions options;
    options.more_metadata = [=](GgufWriter& writer) {
      writer.AddTensor(to, {32}, std::vector<float>(32));
    };
    return options;
  };
  ExpectRefused(renamed("blk.0.attn_q.bias"), "tensor blk.0.attn_q.bias is a bias");
  ExpectRefused(renamed("blk.0.attn_q_norm.weight"),
                "tensor blk.0.attn_q_norm.weight is not part of a llama model");
  ExpectRefused(renamed("blk.2.attn_q.weight"), "tensor blk.2.attn_q.weight is not part");
}

TEST(WeightsTest, WidthThatIsNoMultipleOf32IsRefused) {
  ExpectRefused({.hidden_dim = 72}, "token_embd.weight is 72 wide");
}

// What the file gave must not stay in memory beside what was packed from it.
TEST(WeightsTest, LoadedPagesOfTheFileAreGivenBack) {
  const auto file = OpenTestModel({.vocab_size = 100000, .embedding_type = DType::kQ8_0});
  const ModelConfig config = *ModelConfigFromGguf(*file);
  const auto resident_file_kb = [] {
    long kb = -1;
    std::FILE* status = std::fopen("/proc/self/status", "r");
    char line[256];
    while (std::fgets(line, sizeof(line), status) != nullptr) {
      std::sscanf(line, "RssFile: %ld kB", &kb);
    }
    std::fclose(status);
    return kb;
  };
  const long before = resident_file_kb();
  if (before < 0) GTEST_SKIP() << "the system does not tell resident pages of files";
  cpu::ThreadPool pool(1);
  ASSERT_TRUE(LoadWeights(*file, config, pool, nullptr).ok());
  EXPECT_LT(resident_file_kb() - before, 2500);  // of 6,800
}

}  // namespace
}  // namespace tandem
