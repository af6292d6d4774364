#include "cli/sender_pool.h"

#include <atomic>
#include <set>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

TEST(SenderPoolTest, RunsAllAtOnceUpToItsLimit) {
  absl::BlockingCounter begun(3);
  absl::Notification end;
  SenderPool pool(/*max_threads=*/3);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(pool.TryRun([&] {
      begun.DecrementCount();
      end.WaitForNotification();
    }));
  }
  begun.Wait();
  EXPECT_FALSE(pool.TryRun([] { FAIL(); }));
  end.Notify();
}

TEST(SenderPoolTest, TakesThreadsAgain) {
  std::mutex mutex;
  std::set<std::thread::id> threads;
  std::atomic<int> num_run = 0;
  int num_begun = 0;
  {
    SenderPool pool(/*max_threads=*/2);
    while (num_begun < 300) {
      num_begun += pool.TryRun([&] {
        const std::lock_guard lock(mutex);
        threads.insert(std::this_thread::get_id());
        ++num_run;
      });
    }
  }
  EXPECT_EQ(num_run, 300);
  EXPECT_LE(threads.size(), 2u);
}

}  // namespace
}  // namespace tandem
