#include "cli/start_plan.h"

#include "common/model/cpu_executor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

ModelConfig Shape(const char* name, int32_t num_layers, int32_t num_kv_heads) {
  ModelConfig config;
  config.name = name;
  config.num_layers = num_layers;
  config.num_kv_heads = num_kv_heads;
  config.head_dim = 64;
  return config;
}

int64_t PageBytes(const ModelConfig& target, int32_t positions) {
  return KvLayoutFor(target, KvType::k4, KvType::k4, positions).page_bytes();
}

// A draft whose positions are larger than the target's passed every check and then found no
// page large enough: it never drafted.
TEST(StartPlanTest, PagesGrowUntilTheyHoldPositionsOfTheDraft) {
  const ModelConfig small = Shape("small", 4, 1);
  const ModelConfig large = Shape("large", 30, 3);
  for (const bool is_cpu : {true, false}) {
    EXPECT_EQ(PlanPagePositions(large, KvType::k4, &small, KvType::k8, is_cpu).value(), 32);
    EXPECT_EQ(PlanPagePositions(small, KvType::k4, nullptr, KvType::k8, is_cpu).value(), 32);
    const int32_t positions =
        PlanPagePositions(small, KvType::k4, &large, KvType::k8, is_cpu).value();
    EXPECT_GT(positions, 32);
    EXPECT_GT(DraftPositionsOfPage(PageBytes(small, positions), large, KvType::k8, is_cpu), 0);
    EXPECT_EQ(DraftPositionsOfPage(PageBytes(small, positions - 32), large, KvType::k8, is_cpu), 0);
  }
}

TEST(StartPlanTest, APairThatNoPageHoldsIsRefusedWithNumbersAndARemedy) {
  const ModelConfig target = Shape("speck", 1, 1);
  const ModelConfig draft = Shape("whale", 400, 64);
  const absl::Status status =
      PlanPagePositions(target, KvType::k4, &draft, KvType::kF16, /*is_cpu=*/true).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(
      std::string(status.message()),
      testing::AllOf(testing::HasSubstr("whale need a page of 52428800 bytes"),
                     testing::HasSubstr("speck has 294912"), testing::HasSubstr("swapped")));
}

}  // namespace
}  // namespace tandem
