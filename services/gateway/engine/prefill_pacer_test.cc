#include "services/gateway/engine/prefill_pacer.h"

#include <algorithm>

#include "gtest/gtest.h"

namespace tandem::gateway {
namespace {

// A machine on which a step costs 10 ms, and a chunk `fixed` and `per_token` more.
struct Machine {
  double fixed = 0.0;
  double per_token = 0.0005;
  double row_seconds = 0.0005;
  static constexpr double kPlain = 0.010;

  double Run(PrefillPacer* pacer) const {
    const int32_t tokens = pacer->Budget(kPlain, 1, 1);
    const double seconds = kPlain + fixed + tokens * per_token;
    pacer->ObserveMixed({.num_tokens = tokens,
                         .num_other_rows = 1,
                         .seconds = seconds,
                         .plain_seconds = kPlain,
                         .row_seconds = row_seconds});
    return seconds / kPlain;
  }
};

TEST(PrefillPacerTest, StepsWithPrefillTakeAsLongAsAsked) {
  PrefillPacer pacer({.stretch = 1.5});
  const Machine machine;
  for (int i = 0; i < 20; ++i) machine.Run(&pacer);
  EXPECT_NEAR(machine.Run(&pacer), 1.5, 0.06);
}

TEST(PrefillPacerTest, LearnsWithoutKnowingWhatARowCosts) {
  PrefillPacer pacer({.stretch = 1.5});
  const Machine machine{.row_seconds = 0.0};
  for (int i = 0; i < 20; ++i) machine.Run(&pacer);
  EXPECT_NEAR(machine.Run(&pacer), 1.5, 0.06);
}

// A long prompt's KV is read by each chunk, however small: some progress must be left.
TEST(PrefillPacerTest, AFixedCostStretchesAStepFurtherButNotWithoutBound) {
  PrefillPacer pacer({.stretch = 1.3, .max_stretch = 1.9});
  const Machine machine{.fixed = 0.003};
  double stretch = 0.0;
  for (int i = 0; i < 60; ++i) stretch = machine.Run(&pacer);
  EXPECT_GT(stretch, 1.5);
  EXPECT_LT(stretch, 1.95);
  EXPECT_GE(pacer.Budget(Machine::kPlain, 1, 1), 5);
}

TEST(PrefillPacerTest, ThereIsAlwaysSomeProgressAndNeverTooMuch) {
  PrefillPacer pacer({.stretch = 1.2, .max_stretch = 1.3, .max_tokens = 64});
  EXPECT_EQ(pacer.Budget(0.0, 1, 1), 16);
  pacer.ObserveAlone(256, 256.0);  // a second for each token
  EXPECT_EQ(pacer.Budget(0.001, 1, 1), 2);
  EXPECT_EQ(pacer.Budget(1e9, 1, 1), 64);
}

TEST(PrefillPacerTest, EachPromptThatWaitsMayHaveItsPartOfAStep) {
  PrefillPacer pacer({.stretch = 1.5, .max_tokens = 64});
  const Machine machine;
  for (int i = 0; i < 20; ++i) machine.Run(&pacer);
  const int32_t alone = pacer.Budget(Machine::kPlain, 1, 1);
  EXPECT_NEAR(pacer.Budget(Machine::kPlain, 4, 1), 4 * alone, 4);
  EXPECT_EQ(pacer.Budget(Machine::kPlain, 0, 1), alone);
  EXPECT_EQ(pacer.Budget(1e9, 3, 1), 3 * 64);
}

// Where the next row fills another block of rows it costs as much as the whole block: what a token
// costs in a step of prompts says more.
TEST(PrefillPacerTest, ADearNextRowDoesNotHoldUpPrompts) {
  PrefillPacer pacer({.stretch = 1.5});
  pacer.ObserveAlone(256, 256 * 0.0001);
  const Machine machine{.per_token = 0.0001, .row_seconds = 0.001};
  for (int i = 0; i < 20; ++i) machine.Run(&pacer);
  EXPECT_NEAR(machine.Run(&pacer), 1.5, 0.06);
  EXPECT_GE(pacer.Budget(Machine::kPlain, 1, 1), 45);
}

// Steps of up to 16 rows take 1.3 times a plain one, of up to 32 twice as long and more, the next
// size four times: what a token costs in a step of prompts promises more than there is.
TEST(PrefillPacerTest, ASizeOfStepsThatIsTooLongIsLeftAlone) {
  constexpr double kPlain = 0.002;
  constexpr int32_t kDecoding = 4;
  PrefillPacer pacer({.stretch = 1.5});
  pacer.ObserveAlone(256, 256 * 0.00005);
  int num_too_long = 0;
  int32_t num_tokens = 0;
  for (int i = 0; i < 1000; ++i) {
    const int32_t tokens = pacer.Budget(kPlain, 1, kDecoding);
    const int32_t rows = kDecoding + tokens;
    const double stretch = rows <= 16 ? 1.3 : (rows <= 32 ? 2.1 : 4.0);
    num_too_long += stretch > 2.0 ? 1 : 0;
    num_tokens += tokens;
    pacer.ObserveMixed({.num_tokens = tokens,
                        .num_other_rows = kDecoding,
                        .seconds = stretch * kPlain,
                        .plain_seconds = kPlain,
                        .row_seconds = 0.0003});
  }
  EXPECT_LE(num_too_long, 8);
  EXPECT_GT(num_tokens, 8 * 1000);
}

TEST(PrefillPacerTest, OneOddMeasurementDoesNotStopPrefill) {
  PrefillPacer pacer({.stretch = 1.5});
  const Machine machine;
  for (int i = 0; i < 20; ++i) machine.Run(&pacer);
  const int32_t before = pacer.Budget(Machine::kPlain, 1, 1);
  pacer.ObserveMixed({.num_tokens = before,
                      .num_other_rows = 1,
                      .seconds = 5.0,
                      .plain_seconds = Machine::kPlain,
                      .row_seconds = 0.0005});
  for (int i = 0; i < 8; ++i) machine.Run(&pacer);
  EXPECT_GE(pacer.Budget(Machine::kPlain, 1, 1), before / 2);
}

}  // namespace
}  // namespace tandem::gateway
