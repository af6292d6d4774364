#include "cli/sender_pool.h"

#include <utility>

namespace tandem {

SenderPool::SenderPool(int32_t max_threads) : max_threads_(max_threads) {}

SenderPool::~SenderPool() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool SenderPool::TryRun(std::function<void()> task) {
  const std::lock_guard lock(mutex_);
  if (num_busy_ == max_threads_) return false;
  ++num_busy_;
  tasks_.push_back(std::move(task));
  if (num_busy_ > static_cast<int32_t>(threads_.size())) {
    threads_.emplace_back([this] { Work(); });
  } else {
    changed_.notify_one();
  }
  return true;
}

void SenderPool::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return is_ending_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    lock.lock();
    --num_busy_;
  }
}

}  // namespace tandem
