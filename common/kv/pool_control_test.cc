#include "common/kv/pool_control.h"

#include <cstring>
#include <functional>
#include <vector>

#include "gtest/gtest.h"

namespace tandem {
namespace {

constexpr PoolGeometry kGeometry = {
    .epoch = 7, .num_pages = 5, .page_bytes = 128, .num_draft_probs_slots = 2};

struct alignas(64) Line {
  uint8_t bytes[64];
};

class PoolControlTest : public testing::Test {
 protected:
  PoolControlTest()
      : total_bytes_(PoolControlView::TotalBytes(kGeometry).value()),
        storage_(total_bytes_ / 64 + 1) {}

  absl::Span<uint8_t> memory() { return {storage_[0].bytes, static_cast<size_t>(total_bytes_)}; }
  // Opens the block after `change` was made to its header.
  absl::Status OpenAfter(const std::function<void(PoolControlHeader&)>& change) {
    EXPECT_TRUE(PoolControlView::Create(memory(), kGeometry).ok());
    PoolControlHeader header;
    std::memcpy(&header, memory().data(), sizeof(header));
    change(header);
    std::memcpy(memory().data(), &header, sizeof(header));
    return PoolControlView::Open(memory(), total_bytes_).status();
  }

  int64_t total_bytes_;
  std::vector<Line> storage_;
};

TEST_F(PoolControlTest, SecondViewSeesWhatTheFirstWrites) {
  PoolControlView first = PoolControlView::Create(memory(), kGeometry).value();
  const PoolControlView second = PoolControlView::Open(memory(), total_bytes_).value();
  EXPECT_EQ(second.geometry().epoch, 7);
  EXPECT_EQ(second.geometry().num_pages, 5);
  EXPECT_EQ(second.geometry().page_bytes, 128);
  EXPECT_EQ(second.pages_offset() + 5 * 128, total_bytes_);
  EXPECT_EQ(second.generation(PageId(4)), 0u);
  first.SetGeneration(PageId(4), 9);
  EXPECT_EQ(second.generation(PageId(4)), 9u);
  first.draft_probs_slot(1)->rows[15].entries[255] = {.token_id = 3, .prob = 0.5f};
  EXPECT_EQ(second.draft_probs_slot(1)->rows[15].entries[255].token_id, 3);
}

TEST_F(PoolControlTest, ControlBlockAloneIsEnoughForAPeerThatTouchesNoPage) {
  ASSERT_TRUE(PoolControlView::Create(memory(), kGeometry).ok());
  const int64_t control = PoolControlView::ControlBytes(kGeometry).value();
  EXPECT_TRUE(PoolControlView::Open(memory().subspan(0, control), total_bytes_).ok());
  EXPECT_EQ(PoolControlView::Open(memory().subspan(0, control - 1), total_bytes_).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(PoolControlTest, AnotherBuildIsRefused) {
  using Header = PoolControlHeader;
  EXPECT_EQ(OpenAfter([](Header& h) { h.magic ^= 1; }).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(OpenAfter([](Header& h) { ++h.layout_version; }).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(OpenAfter([](Header& h) { ++h.fingerprint; }).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(PoolControlTest, NumbersThatDoNotFitAreRefused) {
  using Header = PoolControlHeader;
  const std::function<void(Header&)> lies[] = {
      [](Header& h) { h.num_pages = 0; },
      [](Header& h) { h.num_pages = 6; },
      [](Header& h) { h.num_pages = INT32_MAX; },
      [](Header& h) { h.page_bytes = INT64_MAX; },
      [](Header& h) { h.page_bytes = -64; },
      [](Header& h) { h.page_bytes = 65; },
      [](Header& h) { h.epoch = 0; },
      [](Header& h) { h.generations_offset = -8; },
      [](Header& h) { h.slots_offset += 64; },
      [](Header& h) { h.pages_offset = 0; },
      [](Header& h) { h.total_bytes = INT64_MIN; },
      [](Header& h) { h.num_draft_probs_slots = INT32_MAX; },
      [](Header& h) { h.num_draft_probs_slots = -1; },
  };
  for (const auto& lie : lies) {
    EXPECT_EQ(OpenAfter(lie).code(), absl::StatusCode::kDataLoss) << OpenAfter(lie);
  }
  EXPECT_TRUE(OpenAfter([](Header&) {}).ok());
  EXPECT_EQ(PoolControlView::Open(memory(), total_bytes_ - 1).status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_FALSE(PoolControlView::Open(memory().subspan(0, 10), total_bytes_).ok());
}

}  // namespace
}  // namespace tandem
