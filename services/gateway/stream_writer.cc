#include "services/gateway/stream_writer.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "common/base/clock.h"

namespace tandem::gateway {
namespace {

// With nothing due the thread looks this often, which costs nothing.
constexpr absl::Duration kLongestWait = absl::Seconds(1);

}  // namespace

StreamWriter::StreamWriter() : thread_([this] { Run(); }) {}

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

void StreamWriter::Flush() {
  {
    const std::lock_guard lock(mutex_);
    if (posted_.empty()) return;
    is_flushed_ = true;
  }
  flushed_.notify_one();
}

void StreamWriter::Run() {
  std::vector<std::shared_ptr<Stream>> streams;
  absl::Duration wait = kLongestWait;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      flushed_.wait_for(lock, absl::ToChronoNanoseconds(wait),
                        [this] { return is_flushed_ || is_stopping_; });
      if (is_stopping_) return;
      is_flushed_ = false;
      std::move(posted_.begin(), posted_.end(), std::back_inserter(streams));
      posted_.clear();
    }
    wait = kLongestWait;
    const absl::Duration now = Clock::Steady().Now();
    std::erase_if(streams, [&](const std::shared_ptr<Stream>& stream) {
      const absl::Duration due = stream->Write(now);
      wait = std::clamp(due - now, absl::ZeroDuration(), wait);
      return due == absl::InfiniteDuration();
    });
  }
}

}  // namespace tandem::gateway
