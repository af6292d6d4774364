#include "services/gateway/stream_writer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/base/clock.h"

namespace tandem::gateway {
namespace {

// With nothing due the thread looks this often, which costs nothing.
constexpr absl::Duration kLongestWait = absl::Seconds(1);

}  // namespace

StreamWriter::StreamWriter(double messages_per_second)
    : queue_(messages_per_second), thread_([this] { Run(); }) {}

StreamWriter::~StreamWriter() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  flushed_.notify_one();
  thread_.join();
}

void StreamWriter::Post(std::shared_ptr<Stream> stream) {
  const std::lock_guard lock(mutex_);
  posted_.push_back(std::move(stream));
}

void StreamWriter::Hurry() {
  const std::lock_guard lock(mutex_);
  is_urgent_ = true;
}

void StreamWriter::Flush() {
  {
    const std::lock_guard lock(mutex_);
    if (!is_urgent_) {
      // The thread wakes by itself for the next pass.
      if (posted_.empty() || Clock::Steady().Now() < next_pass_) return;
    }
    is_flushed_ = true;
  }
  flushed_.notify_one();
}

void StreamWriter::Run() {
  std::vector<std::shared_ptr<Stream>> posted;
  absl::Duration wait = kLongestWait;
  while (true) {
    bool is_urgent = false;
    {
      std::unique_lock lock(mutex_);
      flushed_.wait_for(lock, absl::ToChronoNanoseconds(wait),
                        [this] { return is_flushed_ || is_stopping_; });
      if (is_stopping_) return;
      is_flushed_ = false;
      is_urgent = std::exchange(is_urgent_, false);
      posted.swap(posted_);
    }
    for (auto& stream : posted) queue_.Add(std::move(stream));
    posted.clear();
    const absl::Duration again = queue_.Pass(Clock::Steady().Now(), is_urgent);
    wait = std::min(again - Clock::Steady().Now(), kLongestWait);
    const std::lock_guard lock(mutex_);
    next_pass_ = queue_.next_pass();
  }
}

}  // namespace tandem::gateway
