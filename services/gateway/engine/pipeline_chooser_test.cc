#include "services/gateway/engine/pipeline_chooser.h"

#include "gtest/gtest.h"

namespace tandem::gateway {
namespace {

// Rounds of `plain` or `halves` tokens a second; the share of rounds in halves.
double ShareInHalves(PipelineChooser& chooser, int32_t num_rounds, int32_t plain, int32_t halves) {
  int32_t count = 0;
  for (int32_t i = 0; i < num_rounds; ++i) {
    const bool in_halves = chooser.Choose();
    count += in_halves ? 1 : 0;
    // A round in halves commits half as much, in less time.
    if (in_halves) {
      chooser.Observe(halves / 200, absl::Milliseconds(5));
    } else {
      chooser.Observe(plain / 100, absl::Milliseconds(10));
    }
  }
  return 1.0 * count / num_rounds;
}

TEST(PipelineChooserTest, WhatIsSlowerIsTriedEverMoreRarely) {
  PipelineChooser chooser(Pipelining::kAuto);
  EXPECT_LT(ShareInHalves(chooser, 20'000, 1000, 600), 0.015);
  EXPECT_LT(ShareInHalves(chooser, 100'000, 1000, 600), 0.005);
}

TEST(PipelineChooserTest, AsFastIsNotWorthAChange) {
  PipelineChooser chooser(Pipelining::kAuto);
  EXPECT_LT(ShareInHalves(chooser, 20'000, 1000, 1000), 0.015);
}

TEST(PipelineChooserTest, WhatIsFasterIsKept) {
  PipelineChooser chooser(Pipelining::kAuto);
  EXPECT_GT(ShareInHalves(chooser, 20'000, 1000, 1400), 0.97);
}

TEST(PipelineChooserTest, GoesBackWhenTheOtherWayBecomesFaster) {
  PipelineChooser chooser(Pipelining::kAuto);
  ShareInHalves(chooser, 1'000, 1000, 1400);
  EXPECT_TRUE(chooser.Choose());
  EXPECT_LT(ShareInHalves(chooser, 20'000, 1000, 600), 0.05);
}

TEST(PipelineChooserTest, OnAndOffAreNotMeasured) {
  PipelineChooser on(Pipelining::kOn);
  EXPECT_EQ(ShareInHalves(on, 2'000, 1000, 600), 1.0);
  PipelineChooser off(Pipelining::kOff);
  EXPECT_EQ(ShareInHalves(off, 2'000, 1000, 1400), 0.0);
}

// The turns in `num_rounds` rounds, each of whose steps takes `seconds` where 1 is expected.
int32_t NumTurns(MeasuringTurns& turns, int32_t num_rounds, double seconds) {
  int32_t count = 0;
  for (int32_t i = 0; i < num_rounds; ++i) {
    if (!turns.Take()) continue;
    ++count;
    turns.Observe(1.0, seconds);
  }
  return count;
}

TEST(MeasuringTurnsTest, AreRareWhilePricesAreRight) {
  MeasuringTurns turns;
  EXPECT_TRUE(turns.Take());
  turns.Observe(0.0, 1.0);  // nothing was known
  EXPECT_LE(NumTurns(turns, 64'000, 1.1), 1002);
}

TEST(MeasuringTurnsTest, ComeSoonerAfterAPriceWasWrong) {
  MeasuringTurns turns;
  NumTurns(turns, 1'000, 1.0);
  EXPECT_GE(NumTurns(turns, 1'000, 1.5), 55);
  EXPECT_LE(NumTurns(turns, 1'000, 1.0), 18);
}

}  // namespace
}  // namespace tandem::gateway
