#include "common/worker/swap_space.h"

#include <cstring>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tandem::worker {
namespace {

using testing::HasSubstr;

constexpr int64_t kPageBytes = 4096;
constexpr int32_t kNumPages = 8;

PageCopy Out(int32_t page, int32_t swap_page) {
  return {.page = PageId(page), .swap_page = swap_page, .to_host = true};
}
PageCopy In(int32_t swap_page, int32_t page) {
  return {.page = PageId(page), .swap_page = swap_page, .to_host = false};
}

// The host's, which counts, and fails when told to.
class CountingCopier final : public PageCopier {
 public:
  struct Counts {
    int32_t allocations = 0;
    int32_t starts = 0;
    int32_t finishes = 0;
    int32_t allocations_left = 1000;
    int32_t starts_left = 1000;
  };
  explicit CountingCopier(Counts* counts) : counts_(*counts) {}

  absl::StatusOr<std::shared_ptr<uint8_t[]>> Allocate(int64_t num_bytes) override {
    if (counts_.allocations_left-- == 0) return absl::ResourceExhaustedError("nothing is left");
    ++counts_.allocations;
    return host_->Allocate(num_bytes);
  }
  absl::Status Start(uint8_t* to, const uint8_t* from, int64_t num_bytes) override {
    if (counts_.starts_left-- == 0) return absl::InternalError("the device is lost");
    ++counts_.starts;
    return host_->Start(to, from, num_bytes);
  }
  absl::Status Finish() override {
    ++counts_.finishes;
    return absl::OkStatus();
  }

 private:
  Counts& counts_;
  std::unique_ptr<PageCopier> host_ = NewHostPageCopier();
};

class SwapSpaceTest : public testing::Test {
 protected:
  SwapSpaceTest() : pages_(kNumPages * kPageBytes) {
    std::iota(pages_.begin(), pages_.end(), 0);
    for (int32_t page = 0; page < kNumPages; ++page) Fill(page, page);
  }

  SwapSpace Make(int64_t num_bytes, int64_t page_bytes = kPageBytes) {
    return SwapSpace(std::make_unique<CountingCopier>(&counts_),
                     {.base = pages_.data(), .page_bytes = page_bytes, .num_pages = kNumPages},
                     num_bytes);
  }
  // No two bytes of a page are alike for long, and no two pages.
  void Fill(int32_t page, uint32_t seed) {
    for (int64_t i = 0; i < kPageBytes; ++i) {
      seed = seed * 1664525 + 1013904223;
      pages_[page * kPageBytes + i] = static_cast<uint8_t>(seed >> 24);
    }
  }
  std::string Page(int32_t page) const {
    return {reinterpret_cast<const char*>(pages_.data()) + page * kPageBytes, kPageBytes};
  }

  std::vector<uint8_t> pages_;
  CountingCopier::Counts counts_;
};

TEST_F(SwapSpaceTest, PagesComeBackAsTheyWere) {
  SwapSpace space = Make(5 * kPageBytes);
  const std::vector<uint8_t> before = pages_;
  ASSERT_TRUE(space.Run({Out(1, 4), Out(7, 0), Out(2, 2)}).ok());
  EXPECT_EQ(pages_, before);
  for (const int32_t page : {1, 2, 7}) Fill(page, 100 + page);
  const std::string kept = Page(0);
  const std::string one = {before.begin() + kPageBytes, before.begin() + 2 * kPageBytes};
  ASSERT_TRUE(space.Run({In(4, 3), In(0, 7), In(2, 2)}).ok());
  EXPECT_EQ(Page(3), one);
  EXPECT_EQ(Page(0), kept);
  EXPECT_EQ(std::memcmp(&pages_[7 * kPageBytes], &before[7 * kPageBytes], kPageBytes), 0);
  EXPECT_EQ(std::memcmp(&pages_[2 * kPageBytes], &before[2 * kPageBytes], kPageBytes), 0);
  // A place may be read as often as one likes.
  ASSERT_TRUE(space.Run({In(4, 5)}).ok());
  EXPECT_EQ(Page(5), one);
  EXPECT_EQ(counts_.finishes, 3);
}

// A page that leaves makes room for one that comes, in one step.
TEST_F(SwapSpaceTest, CopiesOfAStepFollowEachOther) {
  SwapSpace space = Make(2 * kPageBytes);
  const std::string first = Page(0);
  const std::string second = Page(1);
  ASSERT_TRUE(space.Run({Out(0, 0), Out(1, 1), In(1, 0), In(0, 1), Out(0, 0), In(0, 2)}).ok());
  EXPECT_EQ(Page(0), second);
  EXPECT_EQ(Page(1), first);
  EXPECT_EQ(Page(2), second);
}

TEST_F(SwapSpaceTest, HasAsManyPlacesAsFit) {
  EXPECT_EQ(Make(0).num_pages(), 0);
  EXPECT_EQ(Make(-1).num_pages(), 0);
  EXPECT_EQ(Make(kPageBytes - 1).num_pages(), 0);
  EXPECT_EQ(Make(3 * kPageBytes + 1).num_pages(), 3);
  EXPECT_EQ(Make(INT64_MAX).num_pages(), 1 << 24);
  EXPECT_EQ(counts_.allocations, 0);
}

TEST_F(SwapSpaceTest, MemoryIsTakenInBlocksWhenPlacesAreUsed) {
  SwapSpace space = Make(int64_t{100} << 20);  // 64 MiB and 36
  EXPECT_EQ(space.held_bytes(), 0);
  ASSERT_TRUE(space.Run({}).ok());
  EXPECT_EQ(space.held_bytes(), 0);
  const int32_t last = space.num_pages() - 1;
  ASSERT_TRUE(space.Run({Out(0, last), Out(1, last - 1)}).ok());
  EXPECT_EQ(space.held_bytes(), int64_t{36} << 20);
  ASSERT_TRUE(space.Run({Out(2, 0), In(last, 3), Out(4, 16383)}).ok());
  EXPECT_EQ(space.held_bytes(), int64_t{100} << 20);
  EXPECT_EQ(counts_.allocations, 2);
  EXPECT_EQ(Page(3), Page(0));
}

TEST_F(SwapSpaceTest, WrongNumbersAreRefusedBeforeAnyCopy) {
  SwapSpace space = Make(5 * kPageBytes);
  const std::pair<PageCopy, const char*> kBad[] = {
      {Out(kNumPages, 0), "page 8, the pool has 8"},
      {Out(-1, 0), "page -1"},
      {Out(INT32_MAX, 0), "page 2147483647"},
      {In(5, 0), "swap page 5, --swap-space has room for 5"},
      {Out(0, -1), "swap page -1"},
      {In(INT32_MIN, 0), "swap page -2147483648"},
  };
  for (const auto& [copy, message] : kBad) {
    const absl::Status status = space.Run({Out(0, 0), copy});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr(message));
  }
  EXPECT_EQ(counts_.starts, 0);
  EXPECT_EQ(space.held_bytes(), 0);
}

TEST_F(SwapSpaceTest, WithoutMemoryNothingIsCopied) {
  SwapSpace space = Make(int64_t{100} << 20);
  counts_.allocations_left = 1;
  EXPECT_EQ(space.Run({Out(0, 0), Out(1, space.num_pages() - 1)}).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(counts_.starts, 0);
  // What is there is of use.
  EXPECT_TRUE(space.Run({Out(0, 0)}).ok());
  EXPECT_EQ(counts_.starts, 1);
}

// The allocation would succeed, and the kernel end the process when it is written.
TEST_F(SwapSpaceTest, MoreThanTheMachineHasIsNotAskedFor) {
  SwapSpace space = Make(int64_t{1} << 51, /*page_bytes=*/int64_t{1} << 50);
  ASSERT_EQ(space.num_pages(), 2);
  const absl::Status status = space.Run({Out(0, 0)});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("smaller --swap-space"));
  EXPECT_EQ(counts_.allocations, 0);
}

TEST_F(SwapSpaceTest, CopiesThatWereBegunEndBeforeAnErrorIsTold) {
  SwapSpace space = Make(5 * kPageBytes);
  counts_.starts_left = 2;
  const absl::Status status = space.Run({Out(0, 0), Out(1, 1), Out(2, 2), Out(3, 3)});
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(counts_.starts, 2);
  EXPECT_EQ(counts_.finishes, 1);
}

TEST(SwapSpaceBytesTest, IsAQuarterOfWhatThereIsAtMost) {
  EXPECT_EQ(SwapSpaceBytes(1000, 8000), 1000);
  EXPECT_EQ(SwapSpaceBytes(1000, 2000), 500);
  EXPECT_EQ(SwapSpaceBytes(1000, 0), 0);
  EXPECT_EQ(SwapSpaceBytes(0, 8000), 0);
}

}  // namespace
}  // namespace tandem::worker
