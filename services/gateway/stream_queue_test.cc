#include "services/gateway/stream_queue.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace tandem::gateway {
namespace {

constexpr absl::Duration kStep = absl::Milliseconds(5);

// Tokens that wait, and when they were written.
class FakeStream final : public StreamQueue::Stream {
 public:
  absl::Duration Write(absl::Duration now, MessageBudget& budget) override {
    if (now < not_before) return not_before;
    if (!is_urgent && !budget.Take()) return now;
    is_queued = is_urgent = false;
    num_written += std::exchange(num_waiting, 0);
    times.push_back(now);
    return absl::InfiniteDuration();
  }

  bool is_queued = false;
  bool is_urgent = false;
  absl::Duration not_before = -absl::InfiniteDuration();
  int32_t num_waiting = 0;
  int32_t num_written = 0;
  std::vector<absl::Duration> times;
};

// An engine that makes a token for each stream in each step, and a writer's thread.
class StreamQueueTest : public testing::Test {
 protected:
  void MakeQueue(double messages_per_second, int32_t num_streams) {
    queue_ = std::make_unique<StreamQueue>(messages_per_second);
    for (int32_t i = 0; i < num_streams; ++i) streams_.push_back(std::make_shared<FakeStream>());
  }

  void Post(const std::shared_ptr<FakeStream>& stream) {
    ++stream->num_waiting;
    if (!std::exchange(stream->is_queued, true)) queue_->Add(stream);
  }
  // Until `end` without a step.
  void PassUntil(absl::Duration end) {
    while (due_ <= end) {
      now_ = std::max(now_, due_);
      Pass();
    }
    now_ = end;
  }
  void Step(absl::Duration step = kStep) {
    PassUntil(now_ + step);
    for (const auto& stream : streams_) Post(stream);
    if (now_ >= queue_->next_pass()) Pass();
  }
  void Pass(bool some_cannot_wait = false) {
    const size_t before = NumMessages();
    due_ = queue_->Pass(now_, some_cannot_wait);
    EXPECT_GT(due_, now_);
    largest_pass_ = std::max(largest_pass_, NumMessages() - before);
    ++num_passes_;
  }

  size_t NumMessages() const {
    size_t count = 0;
    for (const auto& stream : streams_) count += stream->times.size();
    return count;
  }
  static absl::Duration LongestGap(const FakeStream& stream) {
    absl::Duration longest = absl::ZeroDuration();
    for (size_t i = 1; i < stream.times.size(); ++i) {
      longest = std::max(longest, stream.times[i] - stream.times[i - 1]);
    }
    return longest;
  }

  std::unique_ptr<StreamQueue> queue_;
  std::vector<std::shared_ptr<FakeStream>> streams_;
  absl::Duration now_ = absl::Seconds(1000);
  absl::Duration due_ = absl::InfiniteDuration();
  size_t largest_pass_ = 0;
  int32_t num_passes_ = 0;
};

TEST_F(StreamQueueTest, FewStreamsGetAMessageAStep) {
  for (const int32_t num_streams : {1, 2}) {
    streams_.clear();
    MakeQueue(/*messages_per_second=*/500, num_streams);
    for (size_t i = 1; i <= 1000; ++i) {
      Step();
      for (const auto& stream : streams_) {
        ASSERT_EQ(stream->times.size(), i);
        ASSERT_EQ(stream->times.back(), now_);
      }
    }
  }
}

TEST_F(StreamQueueTest, WithoutALimitEveryStepIsWritten) {
  MakeQueue(/*messages_per_second=*/0, 64);
  for (size_t i = 1; i <= 100; ++i) {
    Step(absl::Microseconds(10));
    EXPECT_EQ(NumMessages(), 64u * i);
  }
}

TEST_F(StreamQueueTest, ManyStreamsShareTheBudgetInTurn) {
  constexpr int32_t kStreams = 48;
  constexpr double kRate = 500;
  MakeQueue(kRate, kStreams);
  for (int32_t i = 0; i < 200; ++i) Step();  // what was saved is used up
  const size_t before = NumMessages();
  largest_pass_ = 0;
  num_passes_ = 0;
  constexpr int32_t kSteps = 2000;
  for (int32_t i = 0; i < kSteps; ++i) Step();

  const double seconds = absl::ToDoubleSeconds(kSteps * kStep);
  EXPECT_NEAR(static_cast<double>(NumMessages() - before), kRate * seconds, 24);
  EXPECT_LE(largest_pass_, 25u);                      // a few of them at a time
  EXPECT_NEAR(num_passes_, kRate * seconds / 24, 2);  // and no pass without any
  for (const auto& stream : streams_) {
    stream->times.erase(stream->times.begin(),
                        stream->times.begin() + static_cast<int64_t>(stream->times.size() / 2));
    EXPECT_LE(LongestGap(*stream), absl::Seconds(kStreams / kRate) + kStep);
    // Nothing is lost or doubled.
    EXPECT_EQ(stream->num_written + stream->num_waiting, kSteps + 200);
  }
}

TEST_F(StreamQueueTest, SlowStepsOfManyStreamsFitTheBudget) {
  MakeQueue(/*messages_per_second=*/500, 32);
  for (size_t i = 1; i <= 100; ++i) {
    Step(absl::Milliseconds(70));
    EXPECT_EQ(NumMessages(), 32u * i);
  }
}

TEST_F(StreamQueueTest, WhatWaitsIsWrittenThoughNoStepComes) {
  MakeQueue(/*messages_per_second=*/100, 64);
  for (int32_t i = 0; i < 3; ++i) Step(absl::Milliseconds(1));
  EXPECT_LT(NumMessages(), 64u);
  PassUntil(now_ + absl::Seconds(1));
  for (const auto& stream : streams_) EXPECT_EQ(stream->num_written, 3);
  EXPECT_EQ(due_, absl::InfiniteDuration());
}

TEST_F(StreamQueueTest, WhatCannotWaitGoesAtOnceAndCostsTheOthersNothing) {
  MakeQueue(/*messages_per_second=*/1, 3);
  Step();
  EXPECT_EQ(NumMessages(), 1u);  // the only message there was
  streams_[2]->is_urgent = true;
  Pass(/*some_cannot_wait=*/true);
  EXPECT_EQ(streams_[2]->times.size(), 1u);
  EXPECT_EQ(NumMessages(), 2u);
  PassUntil(now_ + absl::Seconds(1.1));
  EXPECT_EQ(NumMessages(), 3u);
}

TEST_F(StreamQueueTest, AStreamThatAsksForLaterIsAskedThenAndTakesNothingUntilThen) {
  MakeQueue(/*messages_per_second=*/100, 2);
  streams_[0]->not_before = now_ + absl::Seconds(2);
  Step();
  EXPECT_EQ(streams_[0]->times.size(), 0u);
  EXPECT_EQ(streams_[1]->times.size(), 1u);
  EXPECT_EQ(due_, streams_[0]->not_before);
  PassUntil(now_ + absl::Seconds(3));
  EXPECT_EQ(streams_[0]->times, std::vector<absl::Duration>{streams_[0]->not_before});
}

}  // namespace
}  // namespace tandem::gateway
