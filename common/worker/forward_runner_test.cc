#include "common/worker/forward_runner.h"

#include <map>
#include <random>
#include <vector>

#include "common/worker/fake_executor.h"
#include "gtest/gtest.h"

namespace tandem::worker {
namespace {

constexpr int32_t kPagesOfWork = 25;  // 200 positions of 8
constexpr int64_t kPageBytes = 8 * 128;
constexpr int32_t kFailing = 49;

// Executors of other limits must see the same logits.
class Runs {
 public:
  explicit Runs(ExecutorLimits limits)
      : executor_({.limits = limits, .failing_token = kFailing}),
        memory_(kPagesOfWork * 8 * kPageBytes) {
    EXPECT_TRUE(
        executor_
            .AttachKv(
                {.base = memory_.data(), .page_bytes = kPageBytes, .num_pages = kPagesOfWork * 8})
            .ok());
  }

  // First logit of each row asked for, by work; works whose `refused` says so may not run.
  std::map<int32_t, std::vector<float>> Run(std::vector<ForwardWork>& works, int32_t refused = -1) {
    std::vector<std::vector<int32_t>> tables(works.size());
    for (size_t i = 0; i < works.size(); ++i) {
      for (int32_t page = 0; page < kPagesOfWork; ++page) {
        tables[i].push_back(static_cast<int32_t>(i) * kPagesOfWork + page);
      }
      works[i].page_table = tables[i];
    }
    std::map<int32_t, std::vector<float>> rows;
    ForwardRunner runner(&executor_);
    const auto may_run = [refused](int32_t index) {
      return index == refused ? absl::AbortedError("fenced") : absl::OkStatus();
    };
    runner.Run(absl::MakeSpan(works), may_run, [&](int32_t index, int32_t first_row) {
      EXPECT_TRUE(rows[index].empty()) << "work " << index << " ended twice";
      for (int32_t i = 0; i < works[index].num_logits; ++i) {
        rows[index].push_back(executor_.Logits(first_row + i)[0]);
      }
    });
    return rows;
  }
  int32_t num_forwards() const { return executor_.num_forwards(); }

 private:
  FakeExecutor executor_;
  std::vector<uint8_t> memory_;
};

constexpr ExecutorLimits kWide = {
    .max_step_tokens = 4096, .max_logits_rows = 512, .max_positions = 200};

TEST(ForwardRunnerTest, LogitsAreTheSameWhereverTheStepIsCut) {
  for (uint32_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const size_t count = 1 + random() % 8;
    std::vector<std::vector<int32_t>> tokens(count);
    std::vector<ForwardWork> works(count);
    for (size_t i = 0; i < count; ++i) {
      tokens[i].resize(1 + random() % (random() % 3 == 0 ? 150 : 18));
      for (int32_t& id : tokens[i]) id = random() % 48;
      works[i].token_ids = tokens[i];
      works[i].num_logits = random() % (std::min<size_t>(tokens[i].size(), 17) + 1);
    }
    std::vector<ForwardWork> narrow_works = works;
    Runs wide(kWide);
    Runs narrow({.max_step_tokens = 17 + static_cast<int32_t>(random() % 40),
                 .max_logits_rows = 17 + static_cast<int32_t>(random() % 20),
                 .max_positions = 200});
    const auto rows = wide.Run(works);
    EXPECT_EQ(narrow.Run(narrow_works), rows);
    EXPECT_EQ(wide.num_forwards(), 1);
    for (size_t i = 0; i < count; ++i) {
      EXPECT_TRUE(narrow_works[i].status.ok());
      if (works[i].num_logits > 0) {
        EXPECT_EQ(rows.at(i).size(), static_cast<size_t>(works[i].num_logits));
      }
    }
  }
}

TEST(ForwardRunnerTest, PassThatFailsIsRunOneByOne) {
  const std::vector<int32_t> good = {1, 2, 3};
  const std::vector<int32_t> bad = {1, kFailing};
  std::vector<ForwardWork> works(4);
  for (size_t i = 0; i < 4; ++i) {
    works[i].token_ids = i == 2 ? bad : good;
    works[i].num_logits = 2;
  }
  Runs runs(kWide);
  const auto rows = runs.Run(works);
  EXPECT_EQ(works[2].status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows.at(0), rows.at(3));
}

TEST(ForwardRunnerTest, WorkThatMayNotRunIsLeftOut) {
  const std::vector<int32_t> tokens = {1, 2, 3};
  std::vector<ForwardWork> works(3);
  for (ForwardWork& work : works) {
    work.token_ids = tokens;
    work.num_logits = 1;
  }
  works[0].status = absl::CancelledError("before");
  Runs runs(kWide);
  const auto rows = runs.Run(works, /*refused=*/1);
  EXPECT_EQ(works[0].status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(works[1].status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows.count(2), 1u);
}

}  // namespace
}  // namespace tandem::worker
