#include "common/speculation/step_costs.h"

#include <random>

#include "common/speculation/acceptance.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

TEST(StepCostsTest, LearnsBothModelsThroughNoiseAndOutliers) {
  StepCosts costs;
  std::mt19937 random(1);
  std::uniform_real_distribution<double> noise(0.95, 1.05);
  for (int32_t i = 0; i < 400; ++i) {
    const double outlier = i % 50 == 7 ? 20.0 : 1.0;
    const int32_t rows = 1 + i % 9;
    costs.ObserveVerify(rows, (1.0 + 0.1 * (rows - 1)) * noise(random) * outlier);
    const int32_t drafts = 1 + i % 5;
    costs.ObservePropose(1, drafts, (0.1 + 0.2 * drafts) * noise(random) * outlier);
  }
  for (const int32_t rows : {1, 5, 9})
    EXPECT_NEAR(costs.Verify(rows) / (0.9 + 0.1 * rows), 1, 0.15);
  for (const int32_t n : {1, 3, 5}) EXPECT_NEAR(costs.Propose(1, n) / (0.1 + 0.2 * n), 1, 0.15);
  EXPECT_EQ(costs.Propose(1, 0), 0.0);
}

TEST(StepCostsTest, TellsWhatADraftsStepCostsFromWhatItsTokensCost) {
  StepCosts costs;
  EXPECT_EQ(costs.DraftPrefill(64), 0.0);
  EXPECT_EQ(costs.DraftPrefillToken(), 0.0);
  for (int32_t i = 0; i < 50; ++i) {
    const int32_t num_tokens = 32 + i % 5 * 40;
    costs.ObserveDraftPrefill(num_tokens, 0.5 + 0.01 * num_tokens);
  }
  EXPECT_NEAR(costs.DraftPrefillToken(), 0.01, 0.002);
  EXPECT_NEAR(costs.DraftPrefill(100), 1.5, 0.15);
}

TEST(StepCostsTest, AColdStartAmongTheFirstDraftsIsSoonForgotten) {
  StepCosts costs;
  for (const double seconds : {20.0, 0.5, 0.5, 12.0, 0.5, 0.5}) {
    costs.ObservePropose(8, 1, seconds);
  }
  EXPECT_LT(costs.Propose(8, 1), 0.9);
}

TEST(StepCostsTest, RecoversFromASlowFirstStep) {
  StepCosts costs;
  costs.ObserveVerify(1, 50.0);
  for (int32_t i = 0; i < 6; ++i) costs.ObserveVerify(1, 1.0);
  EXPECT_LT(costs.Verify(1), 1.5);
}

TEST(StepCostsTest, GuessesBetweenAndBeyondWhatItMeasured) {
  StepCosts costs;
  costs.ObserveVerify(1, 1.0);
  EXPECT_GT(costs.Verify(5), costs.Verify(2));
  EXPECT_GT(costs.Verify(200), costs.Verify(16));
  costs.ObserveVerify(9, 3.0);
  EXPECT_NEAR(costs.Verify(5), 2.0, 1e-9);
  EXPECT_GT(costs.Propose(1, 4), costs.Propose(1, 1));
}

// A batch of 32 and its drafts are different row counts, or drafts would look free.
TEST(StepCostsTest, TellsABatchFromTheSameBatchWithDrafts) {
  StepCosts costs;
  for (const int32_t batch : {17, 24, 32, 48, 64, 200}) {
    for (int32_t i = 0; i < 10; ++i) {
      costs.ObserveVerify(batch, batch);
      costs.ObserveVerify(batch + batch / 4, batch + batch / 4);
    }
    EXPECT_NEAR(costs.Verify(batch), batch, 0.05 * batch);
    EXPECT_NEAR(costs.Verify(batch + batch / 4), batch + batch / 4, 0.05 * batch);
    EXPECT_NEAR(costs.Verify(batch + batch / 8), batch + batch / 8, 0.1 * batch);
  }
}

TEST(StepCostsTest, StepsWithPromptsTellWhatNoVerifyHasTold) {
  StepCosts costs;
  costs.ObserveMixed(44, 5.0);
  EXPECT_FALSE(costs.knows_verify());
  costs.ObserveVerify(31, 2.9);
  costs.ObserveVerify(32, 3.0);
  EXPECT_NEAR(costs.Verify(44), 5.0, 1e-9);
  EXPECT_GT(costs.Verify(38), 3.7);  // 0.1 a row would be 3.6
  costs.ObserveVerify(44, 4.0);      // a verify outweighs it
  EXPECT_NEAR(costs.Verify(44), 4.0, 1e-9);
  costs.ObserveMixed(44, 9.0);
  EXPECT_NEAR(costs.Verify(44), 4.0, 1e-9);
}

TEST(StepCostsTest, RowsThatAGpuRunsAnywayAreFree) {
  StepCosts costs;
  for (const int32_t rows : {31, 32}) costs.ObserveVerify(rows, 2.9);
  for (const int32_t rows : {42, 58, 63}) costs.ObserveMixed(rows, 5.2);
  costs.ObserveMixed(68, 7.3);
  EXPECT_EQ(costs.FreeRows(42), 64 - 42);
  EXPECT_EQ(costs.FreeRows(64), 0);
  EXPECT_LE(costs.FreeRows(31), 1);
}

TEST(StepCostsTest, NoRowIsFreeWhereEachCostsAsMuch) {
  StepCosts costs;
  for (const int32_t rows : {1, 8, 30, 60, 120}) costs.ObserveVerify(rows, 1.0 + 0.3 * rows);
  for (const int32_t rows : {4, 16, 40, 100}) EXPECT_LE(costs.FreeRows(rows), 3) << rows;
}

TEST(StepCostsTest, AllRowCountsFollowASlowDown) {
  StepCosts costs;
  for (int32_t i = 0; i < 20; ++i) {
    costs.ObserveVerify(1, 1.0);
    costs.ObserveVerify(5, 1.5);
  }
  for (int32_t i = 0; i < 60; ++i) costs.ObserveVerify(5, 3.0);
  EXPECT_GT(costs.Verify(1), 1.3);
}

TEST(AcceptanceEstimateTest, PositionsAfterARejectionAreCensored) {
  AcceptanceEstimate estimate(0.5);
  // The first is always kept, the second never: the third is never seen.
  for (int32_t i = 0; i < 50; ++i) estimate.Record(3, 1);
  EXPECT_GT(estimate.Conditional(0), 0.85);
  EXPECT_LT(estimate.Conditional(1), 0.2);
  EXPECT_NEAR(estimate.Conditional(2), estimate.rate(), 1e-9);
}

TEST(AcceptanceEstimateTest, FollowsAChangeWithinTwentySteps) {
  AcceptanceEstimate estimate(0.5);
  for (int32_t i = 0; i < 200; ++i) estimate.Record(2, 2);
  EXPECT_GT(estimate.Conditional(1), 0.9);
  for (int32_t i = 0; i < 20; ++i) estimate.Record(2, 0);
  EXPECT_LT(estimate.Conditional(0), 0.5);
}

}  // namespace
}  // namespace tandem
