// Pages that wait in host memory while others use their place.
#include <algorithm>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "services/target/target_engine_fixture.h"

namespace tandem::target {
namespace {

using testing::HasSubstr;
using worker::OpenSequence;
using worker::PageCopy;
using worker::PageEntry;

constexpr int32_t kPositions = 40;  // five pages
const std::vector<int32_t> kPrompt = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8};

std::vector<PageCopy> Copies(const std::vector<PageEntry>& pages, bool to_host) {
  std::vector<PageCopy> copies;
  for (const PageEntry& entry : pages) {
    // Some place; which does not matter.
    const auto place = static_cast<int32_t>((copies.size() * 5 + 2) % kNumSwapPages);
    copies.push_back({.page = entry.page, .swap_page = place, .to_host = to_host});
  }
  return copies;
}

class TargetEngineSwapTest : public testing::TestWithParam<ExecutorKind> {
 protected:
  // Decodes `count` tokens that follow `text`, whose last token has no KV yet, and adds them.
  void Decode(Bench& bench, int32_t count, std::vector<int32_t>* text) {
    for (int32_t i = 0; i < count; ++i) {
      const VerifyResult result =
          bench.RunOne({.sequence = SequenceId(1),
                        .start_position = static_cast<int32_t>(text->size()) - 1,
                        .token_ids = {text->back()},
                        .sample = true});
      ASSERT_TRUE(result.status.ok()) << result.status;
      text->push_back(result.next_token_id);
    }
  }
  // The text after a prompt and some decodes.
  std::vector<int32_t> Begin(Bench& bench, const std::vector<PageEntry>& pages) {
    bench.Open(1, kSampling);
    std::vector<int32_t> text = kPrompt;
    const VerifyResult result = bench.RunOne(
        {.sequence = SequenceId(1), .token_ids = text, .pages = pages, .sample = true});
    EXPECT_TRUE(result.status.ok()) << result.status;
    text.push_back(result.next_token_id);
    Decode(bench, 5, &text);
    return text;
  }
  // Sequence 2 takes the pages that sequence 1 has given back, and fills them.
  void Overwrite(Bench& bench, const std::vector<PageEntry>& given_back) {
    std::vector<PageId> ids;
    for (const PageEntry& entry : given_back) ids.push_back(entry.page);
    bench.free().Release(ids);
    const std::vector<PageEntry> pages = bench.Pages(kPositions);
    ASSERT_TRUE(std::any_of(pages.begin(), pages.end(),
                            [&](const PageEntry& entry) { return entry.page == ids[0]; }));
    bench.Open(2);
    const VerifyResult result = bench.RunOne({.sequence = SequenceId(2),
                                              .token_ids = std::vector<int32_t>(kPositions, 7),
                                              .pages = pages,
                                              .sample = true});
    ASSERT_TRUE(result.status.ok()) << result.status;
  }
  // The text of sequence 1 to its end, from the step that copies its pages back into others.
  // `open`: what that step opens.
  std::vector<int32_t> Resume(Bench& bench, std::vector<int32_t> text,
                              std::vector<OpenSequence> open) {
    const std::vector<PageEntry> others = bench.Pages(kPositions);
    const VerifyStepResult back =
        bench.Run({.copies = Copies(others, /*to_host=*/false),
                   .open = std::move(open),
                   .sequences = {{.sequence = SequenceId(1),
                                  .start_position = static_cast<int32_t>(text.size()) - 1,
                                  .token_ids = {text.back()},
                                  .pages = others,
                                  .sample = true}}});
    EXPECT_TRUE(back.status.ok()) << back.status;
    if (!back.status.ok()) return {};
    EXPECT_TRUE(back.results[0].status.ok()) << back.results[0].status;
    if (!back.results[0].status.ok()) return {};
    text.push_back(back.results[0].next_token_id);
    Decode(bench, 11, &text);
    return text;
  }
  std::vector<int32_t> Undisturbed() {
    Bench bench(GetParam());
    std::vector<int32_t> text = Begin(bench, bench.Pages(kPositions));
    Decode(bench, 12, &text);
    return text;
  }

  const SamplingParams kSampling = {.temperature = 0.9f, .seed = 11};
};

TEST_P(TargetEngineSwapTest, ASequenceGoesOnInOtherPagesAsIfNothingHadHappened) {
  const std::vector<int32_t> expected = Undisturbed();
  Bench bench(GetParam());
  const std::vector<PageEntry> pages = bench.Pages(kPositions);
  const std::vector<int32_t> text = Begin(bench, pages);
  const VerifyStepResult out = bench.Run({.copies = Copies(pages, /*to_host=*/true)});
  ASSERT_TRUE(out.status.ok()) << out.status;
  EXPECT_GT(out.copy, absl::ZeroDuration());
  Overwrite(bench, pages);
  EXPECT_EQ(Resume(bench, text, /*open=*/{}), expected);
}

// As after the gateway closed it: all that is known of it comes with its copies.
TEST_P(TargetEngineSwapTest, ASequenceThatWasReleasedIsOpenedWithItsCopies) {
  const std::vector<int32_t> expected = Undisturbed();
  Bench bench(GetParam());
  const std::vector<PageEntry> pages = bench.Pages(kPositions);
  const std::vector<int32_t> text = Begin(bench, pages);
  ASSERT_TRUE(bench.Run({.copies = Copies(pages, true), .release = {SequenceId(1)}}).status.ok());
  Overwrite(bench, pages);
  EXPECT_EQ(Resume(bench, text,
                   {{.sequence = SequenceId(1),
                     .sampling = kSampling,
                     .cached_token_ids = {text.begin(), text.end() - 1}}}),
            expected);
}

INSTANTIATE_TEST_SUITE_P(Executors, TargetEngineSwapTest,
                         testing::Values(ExecutorKind::kFake, ExecutorKind::kTinyF16,
                                         ExecutorKind::kTinyQ8, ExecutorKind::kTinyQ4));

TEST(TargetEngineSwapErrorsTest, NothingOfAStepWithWrongCopiesIsDone) {
  Bench bench;
  const std::vector<PageEntry> pages = bench.Pages(8);
  const PageCopy good = {.page = pages[0].page, .swap_page = 0, .to_host = false};
  const std::string before = bench.PageBytes();
  for (const PageCopy& bad : {PageCopy{.page = PageId(kNumPages)},
                              PageCopy{.swap_page = kNumSwapPages, .to_host = true}}) {
    const VerifyStepResult result =
        bench.Run({.copies = {good, bad}, .open = {{SequenceId(1), {}}}});
    EXPECT_EQ(result.status.code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(bench.engine().num_sequences(), 0);
  EXPECT_EQ(bench.PageBytes(), before);
  EXPECT_TRUE(bench.engine().TakeFailure().ok());
  // A step of another pool is not even looked at.
  EXPECT_EQ(bench.engine().Run({.pool_epoch = kEpoch + 1, .copies = {good}}).status.code(),
            absl::StatusCode::kAborted);
  EXPECT_EQ(bench.PageBytes(), before);
}

TEST(TargetEngineSwapErrorsTest, WithoutSwapPagesCopiesAreRefused) {
  FakeExecutor executor({.limits = {.max_step_tokens = 64, .max_logits_rows = 40}});
  SharedPool pool = SharedPool::Create({.epoch = kEpoch, .num_pages = 4, .page_bytes = 64}).value();
  TargetEngine engine = TargetEngine::Create(&executor, pool.control(), 1).value();
  const VerifyStepResult result = engine.Run({.pool_epoch = kEpoch, .copies = {PageCopy{}}});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(result.status.message(), HasSubstr("--swap-space"));
}

// As an Xid: the worker asks for failures and ends when its device answers nothing.
TEST(TargetEngineSwapErrorsTest, ADeviceThatFailsACopyIsAFailureOfTheEngine) {
  class LostCopier final : public worker::PageCopier {
    absl::StatusOr<std::shared_ptr<uint8_t[]>> Allocate(int64_t num_bytes) override {
      return std::shared_ptr<uint8_t[]>(new uint8_t[num_bytes]);
    }
    absl::Status Start(uint8_t*, const uint8_t*, int64_t) override { return absl::OkStatus(); }
    absl::Status Finish() override { return absl::InternalError("an illegal address"); }
  };
  FakeExecutor executor({.limits = {.max_step_tokens = 64, .max_logits_rows = 40}});
  SharedPool pool = SharedPool::Create({.epoch = kEpoch, .num_pages = 4, .page_bytes = 64}).value();
  worker::SwapSpace space(std::make_unique<LostCopier>(),
                          {.base = pool.pages(), .page_bytes = 64, .num_pages = 4}, 64);
  TargetEngine engine = TargetEngine::Create(&executor, pool.control(), 1, &space).value();
  EXPECT_EQ(engine.Run({.pool_epoch = kEpoch, .copies = {PageCopy{}}}).status.code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(engine.TakeFailure().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(engine.TakeFailure().ok());
}

}  // namespace
}  // namespace tandem::target
