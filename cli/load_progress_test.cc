#include "cli/load_progress.h"

#include "gtest/gtest.h"

namespace tandem {
namespace {

const absl::Time kBegin = absl::UnixEpoch();

TEST(LoadProgressTest, ATerminalHasOneLineThatIsWrittenAgain) {
  LoadProgress progress(/*num_requests=*/20, /*is_terminal=*/true, kBegin);
  EXPECT_EQ(progress.Update(0, kBegin), "\r0 of 20 requests, 0 s");
  EXPECT_EQ(progress.Update(7, kBegin + absl::Seconds(2)), "\r7 of 20 requests, 2 s");
  EXPECT_EQ(progress.Update(20, kBegin + absl::Seconds(3)), "\r20 of 20 requests, 3 s\n");
}

// A log had nothing until the end, however long the test.
TEST(LoadProgressTest, ALogHasALineEveryTenSecondsAndOneAtTheEnd) {
  LoadProgress progress(/*num_requests=*/20, /*is_terminal=*/false, kBegin);
  std::string log;
  for (int tenth_s = 0; tenth_s <= 250; ++tenth_s) {
    log += progress.Update(tenth_s < 250 ? tenth_s / 20 : 20,
                           kBegin + absl::Milliseconds(100) * tenth_s);
  }
  EXPECT_EQ(log, "5 of 20 requests, 10 s\n10 of 20 requests, 20 s\n20 of 20 requests, 25 s\n");
}

}  // namespace
}  // namespace tandem
