// Threads for requests that must not wait for each other.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace tandem {

// Runs each task at once, on a thread that is idle or a new one: there are never more threads
// than there were tasks at a time. Thread-safe.
class SenderPool {
 public:
  // Requires max_threads > 0.
  explicit SenderPool(int32_t max_threads);
  // Waits for all tasks.
  ~SenderPool();

  // False, and nothing is run, while `max_threads` tasks are running.
  [[nodiscard]] bool TryRun(std::function<void()> task);

 private:
  void Work();

  const int32_t max_threads_;
  std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;  // each has an idle thread, or one that starts
  int32_t num_busy_ = 0;                     // threads that have a task or are about to
  bool is_ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace tandem
