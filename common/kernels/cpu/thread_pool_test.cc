#include "common/kernels/cpu/thread_pool.h"

#include <atomic>
#include <chrono>
#include <vector>

#include "gtest/gtest.h"

namespace tandem::cpu {
namespace {

void BusyFor(std::chrono::microseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
  }
}

TEST(ThreadPoolTest, EveryTaskRunsOnceOverManyLoops) {
  for (const int32_t threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    for (int loop = 0; loop < 2000; ++loop) {
      const int32_t num_tasks = loop % 19;
      std::vector<int32_t> counts(static_cast<size_t>(num_tasks), 0);  // not atomic: no task twice
      pool.Run(num_tasks, [&](int32_t task, int32_t thread) {
        EXPECT_GE(thread, 0);
        EXPECT_LT(thread, threads);
        ++counts[static_cast<size_t>(task)];
      });
      for (const int32_t count : counts) ASSERT_EQ(count, 1);
    }
  }
}

// A thread index names one thread at a time: scratch memory may hang on it.
TEST(ThreadPoolTest, TasksOfOneThreadIndexDoNotOverlap) {
  constexpr int32_t kThreads = 4;
  ThreadPool pool(kThreads);
  std::vector<std::atomic<int32_t>> inside(kThreads);
  for (int loop = 0; loop < 200; ++loop) {
    pool.Run(40, [&](int32_t, int32_t thread) {
      EXPECT_EQ(inside[static_cast<size_t>(thread)].fetch_add(1), 0);
      inside[static_cast<size_t>(thread)].fetch_sub(1);
    });
  }
}

// The last task of a slow thread: others take what it has not begun, and the caller outwaits
// its spinning. Between loops the workers fall asleep.
TEST(ThreadPoolTest, SleepersWakeAndASlowThreadIsWaitedFor) {
  ThreadPool pool(3);
  for (int loop = 0; loop < 20; ++loop) {
    std::atomic<int32_t> sum{0};
    pool.Run(30, [&](int32_t task, int32_t thread) {
      if (thread != 0) BusyFor(std::chrono::microseconds(300));
      sum += task;
    });
    EXPECT_EQ(sum, 29 * 30 / 2);
    BusyFor(std::chrono::microseconds(300));
  }
}

TEST(ThreadPoolTest, PoolsComeAndGo) {
  for (int i = 0; i < 100; ++i) {
    ThreadPool a(2), b(3);
    std::atomic<int32_t> num_run{0};
    const auto count = [&](int32_t, int32_t) { ++num_run; };
    if (i % 2 == 0) a.Run(5, count);
    if (i % 3 == 0) b.Run(7, count);
    EXPECT_EQ(num_run, (i % 2 == 0 ? 5 : 0) + (i % 3 == 0 ? 7 : 0));
  }
}

}  // namespace
}  // namespace tandem::cpu
