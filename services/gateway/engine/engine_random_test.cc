// A few hundred random runs, which must have been eventful; `tandem_sim` runs thousands.
#include "common/base/check.h"
#include "gtest/gtest.h"
#include "services/gateway/engine/random_run.h"
#include "services/gateway/engine/steady_run.h"

namespace tandem::gateway {
namespace {

// Sanitizers make a run twenty times slower.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint32_t kNumRuns = 100;
#else
constexpr uint32_t kNumRuns = 300;
#endif

TEST(EngineRandomTest, AnswersAreTheTargetsOwnWhateverHappens) {
  int32_t num_preemptions = 0;
  int32_t num_drafted = 0;
  int32_t num_lookups = 0;
  int32_t num_target_losses = 0;
  int32_t num_draft_losses = 0;
  int32_t num_hangs[kNumRoles] = {};
  int32_t num_refused_steps[kNumRoles] = {};
  int32_t num_failed_entries[kNumRoles] = {};
  int64_t num_cached[kNumRoles] = {};
  for (uint32_t seed = 1; seed <= kNumRuns; ++seed) {
    SCOPED_TRACE(seed);
    RandomRun run(seed);
    run.Run();
    if (testing::Test::HasFailure()) return;
    num_preemptions += static_cast<int32_t>(run.observer().num_preemptions());
    for (int i = 0; i < kNumRoles; ++i) num_cached[i] += run.observer().num_cached_tokens[i];
    for (const Role role : {Role::kTarget, Role::kDraft}) {
      const SimWorker& worker = role == Role::kTarget ? run.target() : run.draft();
      num_hangs[static_cast<int>(role)] += worker.num_hangs;
      num_refused_steps[static_cast<int>(role)] += worker.num_refused_steps;
      num_failed_entries[static_cast<int>(role)] += worker.num_failed_entries;
    }
    num_drafted += run.observer().sequence_steps[static_cast<int>(DraftSource::kDraft)];
    num_lookups += run.observer().sequence_steps[static_cast<int>(DraftSource::kLookup)];
    num_target_losses += run.observer().num_lost[static_cast<int>(Role::kTarget)];
    num_draft_losses += run.observer().num_lost[static_cast<int>(Role::kDraft)];
  }
  // The runs must have been eventful.
  EXPECT_GT(num_preemptions, static_cast<int32_t>(kNumRuns / 6));
  for (const int64_t tokens : num_cached) EXPECT_GT(tokens, static_cast<int64_t>(5 * kNumRuns));
  for (int i = 0; i < kNumRoles; ++i) {
    EXPECT_GT(num_hangs[i], static_cast<int32_t>(kNumRuns / 20));
    EXPECT_GT(num_refused_steps[i], static_cast<int32_t>(kNumRuns / 20));
    EXPECT_GT(num_failed_entries[i], static_cast<int32_t>(kNumRuns / 20));
  }
  EXPECT_GT(num_drafted, static_cast<int32_t>(kNumRuns));
  EXPECT_GT(num_lookups, static_cast<int32_t>(kNumRuns));
  EXPECT_GT(num_target_losses, static_cast<int32_t>(kNumRuns / 6));
  EXPECT_GT(num_draft_losses, static_cast<int32_t>(kNumRuns / 6));
}

TEST(EngineRandomTest, NobodyStarvesUnderASteadyLoad) {
  int64_t num_preemptions = 0;
  for (uint32_t seed = 1; seed <= kNumRuns / 4; ++seed) {
    SCOPED_TRACE(seed);
    SteadyRun run(seed);
    run.Run();
    if (testing::Test::HasFailure()) return;
    num_preemptions += run.observer().num_preemptions();
  }
  EXPECT_GT(num_preemptions, static_cast<int64_t>(kNumRuns / 4));
}

// A check of ours aborts before anything else is said.
TEST(EngineRandomDeathTest, AFailedCheckNamesTheSeed) {
  EXPECT_DEATH(
      {
        const RandomRun run(4711);
        TANDEM_CHECK(run.observer().num_finished > 0);
      },
      "CHECK failed.*\n.*tandem_sim --seed 4711");
}

}  // namespace
}  // namespace tandem::gateway
