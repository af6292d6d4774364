#include "common/model/cpu_executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>

#include "common/base/check.h"
#include "common/model/executor_driver.h"
#include "common/model/reference_forward.h"
#include "common/model/test_model.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

constexpr DType kAllTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16,   DType::kQ8_0,
                               DType::kQ4_0, DType::kQ4_1, DType::kIQ4_NL, DType::kQ4_K,
                               DType::kQ5_K, DType::kQ6_K};

// The K types come in blocks of 256.
TestModelOptions ModelOfType(DType type) {
  TestModelOptions options = {.weight_type = type, .embedding_type = type};
  if (BlockOf(type).elements == 256) {
    options.hidden_dim = 256;
    options.ffn_dim = 256;
    options.num_heads = 8;
    options.num_kv_heads = 2;
  }
  return options;
}

// Worst cosine of a row of logits with the specification's.
double WorstCosine(const TestModelOptions& options, KvType kv_type) {
  const auto file = OpenTestModel(options);
  const ModelConfig config = *ModelConfigFromGguf(*file);
  const std::vector<int32_t> tokens = RandomTokens(40, config.vocab_size, 3);
  const std::vector<double> expected = ReferenceForward(*file, config, tokens);
  ExecutorDriver driver(MakeTestExecutor(*file, kv_type), 1);
  const LogitsRows rows = driver.RunInSteps(0, tokens, {17});
  double worst = 1.0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const size_t vocab = rows[i].size();
    worst = std::min(worst, Cosine(rows[i], absl::MakeSpan(expected).subspan(i * vocab, vocab)));
  }
  return worst;
}

void ExpectSameBits(const LogitsRows& actual, const LogitsRows& expected, const char* grouping) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_EQ(std::memcmp(actual[i].data(), expected[i].data(), actual[i].size() * sizeof(float)),
              0)
        << grouping << ", row " << i;
  }
}

class CpuExecutorTypeTest : public ::testing::TestWithParam<DType> {};

// Float weights meet float activations: what is left is the rounding of K and V to f16.
// Quantized weights meet activations of 8 bits: an error of about 1/254 of a block's
// largest value in each product; 5e-4 was measured for the K types, which are packed anew.
TEST_P(CpuExecutorTypeTest, LogitsAreThoseOfTheReference) {
  const bool is_float = BlockOf(GetParam()).elements == 1;
  EXPECT_GT(WorstCosine(ModelOfType(GetParam()), KvType::kF16), is_float ? 0.999995 : 0.999);
}

TEST_P(CpuExecutorTypeTest, HeadOfItsOwnAndRopeFactorsAreUsed) {
  TestModelOptions options = ModelOfType(GetParam());
  options.tied_head = false;
  for (int32_t i = 0; i < 16; ++i) options.rope_factors.push_back(1.0f + 0.5f * i);
  const bool is_float = BlockOf(GetParam()).elements == 1;
  EXPECT_GT(WorstCosine(options, KvType::kF16), is_float ? 0.999995 : 0.999);
}

// The rows of a trimmed draft's embedding, in the order of its list, and one more.
TestModelOptions Trimmed(const std::vector<int32_t>& kept_ids, int32_t vocab_size) {
  TestModelOptions options = {.vocab_size = static_cast<int32_t>(kept_ids.size()) + 1};
  options.more_metadata = [=](GgufWriter& writer) {
    writer.AddUint32("llama.vocab_size", static_cast<uint32_t>(vocab_size));
    writer.AddInts("tandem.draft.kept_ids", kept_ids);
  };
  return options;
}

TEST(TrimmedDraftTest, KeptIdsHaveTheirRowsAndOthersAreReadButNeverWritten) {
  const std::vector<int32_t> kept_ids = {7, 3, 90, 12, 55};
  const auto file = OpenTestModel(Trimmed(kept_ids, 100));
  const auto plain = OpenTestModel({.vocab_size = 6});
  // Ids 0 and 99 are not on the list: both are the last row.
  ExecutorDriver driver(MakeTestExecutor(*file, KvType::kF16), 1);
  ExecutorDriver expected_driver(MakeTestExecutor(*plain, KvType::kF16), 1);
  const LogitsRows rows = driver.RunInSteps(0, {90, 0, 7, 99, 12}, {5});
  const LogitsRows expected = expected_driver.RunInSteps(0, {2, 5, 0, 5, 3}, {5});
  ASSERT_EQ(rows.size(), expected.size());
  for (size_t row = 0; row < rows.size(); ++row) {
    ASSERT_EQ(rows[row].size(), 100u);
    for (int32_t id = 0; id < 100; ++id) {
      const auto kept = std::find(kept_ids.begin(), kept_ids.end(), id);
      const float logit = rows[row][static_cast<size_t>(id)];
      if (kept == kept_ids.end()) {
        EXPECT_EQ(logit, -1e30f) << id;
      } else {
        EXPECT_EQ(logit, expected[row][static_cast<size_t>(kept - kept_ids.begin())]) << id;
      }
    }
  }
}

TEST(TrimmedDraftTest, ListsThatDoNotFitAreRefused) {
  for (const auto& kept_ids : std::vector<std::vector<int32_t>>{{7, 7}, {7, 100}, {7, -1}}) {
    const auto config = ModelConfigFromGguf(*OpenTestModel(Trimmed(kept_ids, 100)));
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(config.status().message(), HasSubstr("tandem.draft.kept_ids"));
  }
  TestModelOptions too_few = Trimmed({1, 2, 3}, 100);
  too_few.vocab_size = 9;
  EXPECT_THAT(ModelConfigFromGguf(*OpenTestModel(too_few)).status().message(),
              HasSubstr("has 3 ids, but token_embd.weight has 9 rows"));
}

INSTANTIATE_TEST_SUITE_P(AllTypes, CpuExecutorTypeTest, ::testing::ValuesIn(kAllTypes),
                         [](const auto& info) { return DTypeName(info.param); });

TEST(CpuExecutorTest, QuantizedKvStaysNearTheReference) {
  EXPECT_GT(WorstCosine({}, KvType::k8), 0.9995);
  EXPECT_GT(WorstCosine({}, KvType::k4), 0.97);  // 15 levels, and heads of only 32
}

TEST(CpuExecutorTest, OneQueryHeadForEachKvHeadAndManyForOne) {
  TestModelOptions options;
  options.num_kv_heads = options.num_heads;
  EXPECT_GT(WorstCosine(options, KvType::kF16), 0.999995);
  options.num_kv_heads = 1;
  EXPECT_GT(WorstCosine(options, KvType::kF16), 0.999995);
}

class CpuExecutorGroupingTest : public ::testing::TestWithParam<std::tuple<DType, KvType>> {};

// The promise that speculation rests on: a row's bits do not depend on what it is computed
// with. 300 positions cross pages, tiles of 64 positions and splits of 256.
TEST_P(CpuExecutorGroupingTest, RowsHaveTheSameBitsHoweverTheyAreGrouped) {
  const auto [type, kv_type] = GetParam();
  const auto file = OpenTestModel(ModelOfType(type));
  const ModelConfig config = *ModelConfigFromGguf(*file);
  const std::vector<int32_t> tokens = RandomTokens(300, config.vocab_size, 5);
  ExecutorDriver alone(MakeTestExecutor(*file, kv_type, /*num_threads=*/1), 1);
  const LogitsRows one_by_one = alone.RunInSteps(0, tokens, {1});

  ExecutorDriver driver(MakeTestExecutor(*file, kv_type, /*num_threads=*/3), 3);
  ExpectSameBits(driver.RunInSteps(0, tokens, {8}), one_by_one, "verify of 8");
  ExpectSameBits(driver.RunInSteps(1, tokens, {256}), one_by_one, "prefill of 256");
  ExpectSameBits(driver.RunInSteps(2, tokens, {3, 70, 1, 5, 33, 2}), one_by_one, "mixed sizes");

  // Beside two sequences at other positions.
  const std::vector<int32_t> others = RandomTokens(300, config.vocab_size, 6);
  LogitsRows beside;
  for (int32_t start = 0; start < 300; start += 5) {
    const auto piece = absl::MakeSpan(tokens).subspan(static_cast<size_t>(start), 5);
    const LogitsRows rows = driver.Step({{1, start % 128, absl::MakeSpan(others).subspan(0, 7), 2},
                                         {0, start, piece, 5},
                                         {2, start, absl::MakeSpan(others).subspan(9, 1), 1}});
    beside.insert(beside.end(), rows.begin() + 2, rows.begin() + 7);
  }
  ExpectSameBits(beside, one_by_one, "beside others");
}

INSTANTIATE_TEST_SUITE_P(AllTypes, CpuExecutorGroupingTest,
                         ::testing::Combine(::testing::ValuesIn(kAllTypes),
                                            ::testing::Values(KvType::kF16)),
                         [](const auto& info) { return DTypeName(std::get<0>(info.param)); });
INSTANTIATE_TEST_SUITE_P(AllKvTypes, CpuExecutorGroupingTest,
                         ::testing::Combine(::testing::Values(DType::kQ4_1),
                                            ::testing::Values(KvType::k8, KvType::k4)),
                         [](const auto& info) {
                           return std::get<1>(info.param) == KvType::k8 ? "k8" : "k4";
                         });

// Rejected drafts leave K and V behind; the next step overwrites them.
TEST(CpuExecutorTest, TokensAfterARewindAreAsIfTheRejectedOnesHadNeverBeen) {
  const auto file = OpenTestModel({.weight_type = DType::kQ4_0});
  const std::vector<int32_t> tokens = RandomTokens(60, 77, 8);
  ExecutorDriver driver(MakeTestExecutor(*file, KvType::k4), 2);
  const LogitsRows plain = driver.RunInSteps(0, tokens, {60});
  const std::vector<int32_t> rejected = RandomTokens(8, 77, 9);
  driver.RunInSteps(1, absl::MakeSpan(tokens).subspan(0, 30), {30});
  driver.Step({{1, 30, rejected, 8}});
  const LogitsRows after = driver.Step({{1, 30, absl::MakeSpan(tokens).subspan(30), 30}});
  ExpectSameBits(after, LogitsRows(plain.begin() + 30, plain.end()), "after a rewind");
}

// A damaged weight that only one sequence meets must not reach the others in its step.
TEST(CpuExecutorTest, NumbersThatAreNotFiniteStayInTheirSequence) {
  TestModelOptions options;
  options.edit_tensor = [](TestTensor& tensor) {
    if (tensor.name == "token_embd.weight") {
      const float nan = std::numeric_limits<float>::quiet_NaN();
      // Of every token from 40 on: the tokens that 4-bit keys are learned from meet them too.
      for (size_t token = 40; token < 77; ++token) {
        std::memcpy(tensor.data.data() + token * 64 * sizeof(float), &nan, sizeof(nan));
      }
    }
    return true;
  };
  options.tied_head = false;
  const auto file = OpenTestModel(options);
  ExecutorDriver driver(MakeTestExecutor(*file, KvType::k4), 2);
  const std::vector<int32_t> good = {1, 2, 3};
  const std::vector<int32_t> bad = {4, 50, 6};
  const LogitsRows alone = driver.Step({{0, 0, good, 3}});
  for (const auto& row : alone) ASSERT_TRUE(std::isfinite(row[0]));
  const LogitsRows together = driver.Step({{1, 0, bad, 3}, {0, 0, good, 3}});
  EXPECT_TRUE(std::isnan(together[1][0]));
  ExpectSameBits(LogitsRows(together.begin() + 3, together.end()), alone, "beside NaN");
}

TEST(CpuExecutorTest, StepsThatCannotBeAreRefused) {
  const auto file = OpenTestModel({});
  const auto executor = MakeTestExecutor(*file, KvType::k4);
  const std::vector<int32_t> tokens = {1, 2, 3};
  const std::vector<int32_t> table = {0, 1};
  const StepSequence good = {
      .start_position = 0, .token_ids = tokens, .num_logits = 1, .page_table = table};
  EXPECT_EQ(executor->Forward({&good, 1}).code(), absl::StatusCode::kFailedPrecondition);

  std::vector<uint8_t> pages(static_cast<size_t>(executor->kv_layout().page_bytes() * 2));
  const KvMemory memory = {
      .base = pages.data(), .page_bytes = executor->kv_layout().page_bytes(), .num_pages = 2};
  ASSERT_TRUE(executor->AttachKv(memory).ok());
  EXPECT_TRUE(executor->Forward({&good, 1}).ok());
  EXPECT_TRUE(executor->Forward({}).ok());

  const auto expect_refused = [&](auto change, const char* why) {
    StepSequence bad = good;
    change(bad);
    const absl::Status status = executor->Forward({&bad, 1});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << why;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why));
  };
  const std::vector<int32_t> many(257, 1), no_such_id = {1, 77}, negative_id = {-1};
  const std::vector<int32_t> no_such_page = {2, 0}, negative_page = {-1, 0};
  expect_refused([&](auto& s) { s.token_ids = {}; }, "0 tokens");
  expect_refused([&](auto& s) { s.num_logits = 4; }, "3 tokens with 4 rows");
  expect_refused([&](auto& s) { s.num_logits = -1; }, "-1 rows");
  expect_refused([&](auto& s) { s.start_position = -1; }, "positions -1");
  expect_refused([&](auto& s) { s.start_position = 318; }, "the limit is 320");
  expect_refused([&](auto& s) { s.start_position = std::numeric_limits<int32_t>::max(); },
                 "the limit is 320");
  expect_refused([&](auto& s) { s.start_position = 31; }, "34 positions need 3 pages");
  expect_refused([&](auto& s) { s.page_table = {}; }, "the table has 0");
  expect_refused([&](auto& s) { s.page_table = no_such_page; }, "page 2; the pool has 2");
  expect_refused([&](auto& s) { s.page_table = negative_page; }, "page -1");
  expect_refused([&](auto& s) { s.token_ids = no_such_id; }, "token id 77; the vocabulary has 77");
  expect_refused([&](auto& s) { s.token_ids = negative_id; }, "token id -1");
  std::vector<int32_t> long_table(17, 0);
  expect_refused([&](auto& s) { s.token_ids = many, s.page_table = long_table; }, "257 tokens");
  EXPECT_TRUE(executor->Forward({&good, 1}).ok());
}

// The draft's pages are as large as the target's, which it does not know when it loads.
TEST(CpuExecutorTest, PositionsOfAPageAreFittedToThePoolWhenNotGiven) {
  const auto file = OpenTestModel({});
  auto executor = CreateCpuExecutor(*file, {.limits = {.max_positions = 64}});
  ASSERT_TRUE(executor.ok());
  const int64_t position_bytes = (*executor)->kv_layout().position_bytes();
  std::vector<uint8_t> bytes(static_cast<size_t>(position_bytes * 40));
  const auto attach = [&](int64_t page_bytes) {
    return (*executor)->AttachKv({.base = bytes.data(), .page_bytes = page_bytes, .num_pages = 1});
  };
  EXPECT_TRUE(attach(position_bytes * 31).ok());
  EXPECT_EQ((*executor)->kv_layout().page_positions, 24);
  EXPECT_TRUE(attach(position_bytes * 40).ok());
  EXPECT_EQ((*executor)->kv_layout().page_positions, 40);
  EXPECT_THAT(std::string(attach(position_bytes * 8 - 1).message()), HasSubstr("larger pages"));
  EXPECT_EQ((*executor)->kv_layout().page_positions, 40);
}

TEST(CpuExecutorTest, PoolWithPagesThatAreTooSmallIsRefused) {
  const auto file = OpenTestModel({});
  const auto executor = MakeTestExecutor(*file, KvType::k8);
  const int64_t page_bytes = executor->kv_layout().page_bytes();
  std::vector<uint8_t> bytes(static_cast<size_t>(page_bytes));
  EXPECT_EQ(executor->AttachKv({bytes.data(), page_bytes - 1, 1}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(executor->AttachKv({nullptr, page_bytes, 1}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(executor->AttachKv({bytes.data(), page_bytes, 1}).ok());
}

TEST(CpuExecutorTest, OptionsOutOfRangeAreRefused) {
  const auto file = OpenTestModel({});
  for (const CpuExecutorOptions& options :
       std::vector<CpuExecutorOptions>{{.limits = {.max_step_tokens = 0}},
                                       {.limits = {.max_logits_rows = 0}},
                                       {.limits = {.max_positions = 0}},
                                       {.num_threads = 0},
                                       {.page_positions = 12},
                                       {.page_positions = -8}}) {
    EXPECT_EQ(CreateCpuExecutor(*file, options).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(CpuExecutorTest, TwoModelsInOneProcessDoNotMeet) {
  const auto file = OpenTestModel({});
  const auto other_file = OpenTestModel({.vocab_size = 40, .num_layers = 1, .seed = 2});
  const std::vector<int32_t> tokens = RandomTokens(20, 40, 4);
  ExecutorDriver alone(MakeTestExecutor(*file, KvType::k4), 1);
  const LogitsRows expected = alone.RunInSteps(0, tokens, {1});
  ExecutorDriver one(MakeTestExecutor(*file, KvType::k4), 1);
  ExecutorDriver other(MakeTestExecutor(*other_file, KvType::k4), 1);
  LogitsRows rows;
  for (int32_t i = 0; i < 20; ++i) {
    const auto token = absl::MakeSpan(tokens).subspan(static_cast<size_t>(i), 1);
    other.Step({{0, i, token, 1}});
    rows.push_back(one.Step({{0, i, token, 1}})[0]);
  }
  ExpectSameBits(rows, expected, "beside another model");
}

}  // namespace
}  // namespace tandem
