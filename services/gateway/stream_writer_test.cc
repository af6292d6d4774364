#include "services/gateway/stream_writer.h"

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "gtest/gtest.h"

namespace tandem::gateway {
namespace {

// Asks to be written again after each of `delays`.
class RecordingStream final : public StreamWriter::Stream {
 public:
  explicit RecordingStream(std::vector<absl::Duration> delays = {}) : delays_(std::move(delays)) {}
  explicit RecordingStream(bool can_wait) : can_wait_(can_wait) {}

  absl::Duration Write(absl::Duration now, MessageBudget& budget) override {
    const std::lock_guard lock(mutex_);
    if (can_wait_ && !budget.Take()) return now;
    times_.push_back(now);
    written_.notify_all();
    return times_.size() <= delays_.size() ? now + delays_[times_.size() - 1]
                                           : absl::InfiniteDuration();
  }

  bool Await(size_t count) {
    std::unique_lock lock(mutex_);
    return written_.wait_for(lock, std::chrono::seconds(30),
                             [&] { return times_.size() >= count; });
  }
  std::vector<absl::Duration> times() {
    const std::lock_guard lock(mutex_);
    return times_;
  }

 private:
  const std::vector<absl::Duration> delays_;
  const bool can_wait_ = true;
  std::mutex mutex_;
  std::condition_variable written_;
  std::vector<absl::Duration> times_;
};

TEST(StreamWriterTest, WritesAllThatWasPostedOnceFlushed) {
  StreamWriter writer;
  std::vector<std::shared_ptr<RecordingStream>> streams;
  for (int i = 0; i < 32; ++i) {
    streams.push_back(std::make_shared<RecordingStream>());
    writer.Post(streams.back());
  }
  writer.Flush();
  for (const auto& stream : streams) EXPECT_TRUE(stream->Await(1));
  writer.Flush();  // nothing is posted
  auto last = std::make_shared<RecordingStream>();
  writer.Post(last);
  writer.Flush();
  EXPECT_TRUE(last->Await(1));
  for (const auto& stream : streams) EXPECT_EQ(stream->times().size(), 1u);
}

TEST(StreamWriterTest, AStreamThatIsNotDueIsAskedAgainWithoutAFlush) {
  StreamWriter writer;
  const auto delay = absl::Milliseconds(20);
  auto stream = std::make_shared<RecordingStream>(std::vector<absl::Duration>{delay, delay});
  writer.Post(stream);
  writer.Flush();
  ASSERT_TRUE(stream->Await(3));
  const std::vector<absl::Duration> times = stream->times();
  EXPECT_GE(times[1] - times[0], delay);
  EXPECT_GE(times[2] - times[1], delay);
}

TEST(StreamWriterTest, LetsGoOfAStreamThatIsWritten) {
  StreamWriter writer;
  auto stream = std::make_shared<RecordingStream>();
  const std::weak_ptr<RecordingStream> weak = stream;
  writer.Post(stream);
  writer.Flush();
  ASSERT_TRUE(stream->Await(1));
  stream.reset();
  auto next = std::make_shared<RecordingStream>();
  writer.Post(next);
  writer.Flush();
  ASSERT_TRUE(next->Await(1));  // begun after the first was dropped
  EXPECT_TRUE(weak.expired());
}

TEST(StreamWriterTest, StreamsBeyondTheBudgetAreWrittenWithoutAFlush) {
  StreamWriter writer(/*messages_per_second=*/50);
  std::vector<std::shared_ptr<RecordingStream>> streams;
  for (int i = 0; i < 20; ++i) {
    streams.push_back(std::make_shared<RecordingStream>());
    writer.Post(streams.back());
  }
  writer.Flush();
  for (const auto& stream : streams) EXPECT_TRUE(stream->Await(1));
  for (const auto& stream : streams) EXPECT_EQ(stream->times().size(), 1u);
}

TEST(StreamWriterTest, WhatCannotWaitOvertakesWhatCan) {
  StreamWriter writer(/*messages_per_second=*/0.001);
  auto first = std::make_shared<RecordingStream>();
  writer.Post(first);
  writer.Flush();
  ASSERT_TRUE(first->Await(1));  // the only message for a long time
  auto second = std::make_shared<RecordingStream>();
  writer.Post(second);
  writer.Flush();
  auto urgent = std::make_shared<RecordingStream>(/*can_wait=*/false);
  writer.Post(urgent);
  writer.Hurry();
  writer.Flush();
  EXPECT_TRUE(urgent->Await(1));
  EXPECT_TRUE(second->times().empty());
}

TEST(StreamWriterTest, EndsWithStreamsThatWait) {
  auto stream = std::make_shared<RecordingStream>(std::vector<absl::Duration>{absl::Hours(1)});
  {
    StreamWriter writer;
    writer.Post(stream);
    writer.Flush();
    EXPECT_TRUE(stream->Await(1));
    writer.Post(std::make_shared<RecordingStream>());
  }
  EXPECT_EQ(stream.use_count(), 1);
}

}  // namespace
}  // namespace tandem::gateway
