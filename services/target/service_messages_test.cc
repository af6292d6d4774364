#include "services/target/service_messages.h"

#include <iterator>

#include "gtest/gtest.h"

namespace tandem::target {
namespace {

TEST(ServiceMessagesTest, CopiesKeepTheirOrderAndTheirNumbers) {
  v1::VerifyRequest request;
  const worker::PageCopy kCopies[] = {
      {.page = PageId(7), .swap_page = 3, .to_host = true},
      {.page = PageId(0), .swap_page = 3, .to_host = false},
      // What is none of ours is found by whoever knows how many there are.
      {.page = PageId(-1), .swap_page = INT32_MAX, .to_host = true},
  };
  for (const worker::PageCopy& copy : kCopies) {
    v1::PageCopy* message = request.add_copies();
    message->set_page_id(static_cast<int32_t>(copy.page));
    message->set_swap_page(copy.swap_page);
    message->set_to_host(copy.to_host);
  }
  const absl::StatusOr<worker::WorkerStep> step = FromMessage(request);
  ASSERT_TRUE(step.ok()) << step.status();
  ASSERT_EQ(step->copies.size(), std::size(kCopies));
  for (size_t i = 0; i < std::size(kCopies); ++i) {
    EXPECT_EQ(step->copies[i].page, kCopies[i].page);
    EXPECT_EQ(step->copies[i].swap_page, kCopies[i].swap_page);
    EXPECT_EQ(step->copies[i].to_host, kCopies[i].to_host);
  }
}

TEST(ServiceMessagesTest, TimesOfAStepAreToldApart) {
  worker::VerifyStepResult result = {.step_id = 9,
                                     .copy = absl::Microseconds(1),
                                     .forward = absl::Microseconds(2),
                                     .sample = absl::Microseconds(3)};
  v1::VerifyResponse response;
  ToMessage(result, &response);
  EXPECT_EQ(response.step_id(), 9);
  EXPECT_EQ(response.copy_ns(), 1000);
  EXPECT_EQ(response.forward_ns(), 2000);
  EXPECT_EQ(response.sample_ns(), 3000);
  EXPECT_EQ(response.error_code(), 0);
  result.status = absl::ResourceExhaustedError("no memory");
  ToMessage(result, &response);
  EXPECT_EQ(response.error_code(), static_cast<int>(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(response.error_message(), "no memory");
}

TEST(ServiceMessagesTest, InfoSaysHowManySwapPagesThereAre) {
  v1::GetInfoResponse response;
  ToMessage({.num_swap_pages = 12}, &response);
  EXPECT_EQ(response.swap_page_count(), 12);
}

}  // namespace
}  // namespace tandem::target
