#include "common/ipc/step_ring.h"

#include <chrono>
#include <cstring>
#include <random>
#include <thread>

#include "common/base/clock.h"
#include "common/ipc/ipc_test_process.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);

// Message `i` of a stress run: its length and bytes follow from i.
std::vector<uint8_t> MessageAt(uint32_t i) {
  std::mt19937 random(i);
  const uint32_t kind = random() % 20;
  const size_t size = kind == 0 ? random() % 300000 : kind < 5 ? random() % 9000 : random() % 80;
  std::vector<uint8_t> message(size);
  for (size_t k = 0; k < size; k += 61) message[k] = static_cast<uint8_t>(random());
  return message;
}

absl::Span<const uint8_t> Bytes(const char* text) {
  return {reinterpret_cast<const uint8_t*>(text), std::strlen(text)};
}

// Answers message i with message i + 1 until the other side leaves; the number of
// messages, or -1 when one was wrong.
int Echo(StepRing& ring) {
  for (uint32_t i = 0;; ++i) {
    const auto message = ring.Receive(kLong);
    if (!message.ok()) return absl::IsUnavailable(message.status()) ? static_cast<int>(i) : -1;
    if (*message != absl::MakeConstSpan(MessageAt(i))) return -1;
    if (!ring.Send(MessageAt(i + 1), kLong).ok()) return -1;
  }
}

void CallEcho(StepRing& ring, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    ASSERT_TRUE(ring.Send(MessageAt(i), kLong).ok());
    const auto answer = ring.Receive(kLong);
    ASSERT_TRUE(answer.ok()) << answer.status();
    ASSERT_EQ(*answer, absl::MakeConstSpan(MessageAt(i + 1))) << "message " << i;
  }
}

struct RingPair {
  std::unique_ptr<StepRing> server, client;
  uint8_t* memory;
};

RingPair MakePair() {
  SharedMemory first = StepRing::CreateMemory().value();
  SharedMemory second = SharedMemory::Map(OwnedFd(dup(first.fd())), 0).value();
  RingPair pair;
  pair.memory = first.memory().data();
  pair.server = StepRing::Open(std::move(first), OwnedFd(), StepRing::End::kServer).value();
  pair.client = StepRing::Open(std::move(second), OwnedFd(), StepRing::End::kClient).value();
  return pair;
}

TEST(StepRingTest, RequestAndResponseUnderStressBetweenThreads) {
  RingPair pair = MakePair();
  std::thread server([&] { EXPECT_EQ(Echo(*pair.server), 1000); });
  CallEcho(*pair.client, 1000);
  pair.client->Close();
  server.join();
}

// As if there were cores enough.
void Forecast(RingPair& pair) {
  pair.server->ForecastWaits(WaitForecast(WaitForecast::kLeastCores));
  pair.client->ForecastWaits(WaitForecast(WaitForecast::kLeastCores));
}

TEST(StepRingTest, WithWaitsForecastMessagesArriveEarlyLateAndInTime) {
  RingPair pair = MakePair();
  Forecast(pair);
  std::thread server([&] {
    std::mt19937 random(1);
    for (uint32_t i = 0; i < 200; ++i) {
      const auto message = pair.server->Receive(kLong);
      ASSERT_TRUE(message.ok()) << message.status();
      // Mostly alike, so that waits are forecast; some much shorter and longer.
      const int32_t kind = static_cast<int32_t>(random() % 10);
      if (kind > 0) {
        std::this_thread::sleep_for(std::chrono::microseconds(kind == 1 ? 5000 : 700));
      }
      ASSERT_TRUE(pair.server->Send(MessageAt(i + 1), kLong).ok());
    }
  });
  CallEcho(*pair.client, 200);
  server.join();
}

TEST(StepRingTest, WithWaitsForecastTheyEndAtTheDeadlineAndWhenThePeerLeaves) {
  RingPair pair = MakePair();
  Forecast(pair);
  for (int i = 0; i < 20; ++i) {  // waits of nothing: the next is forecast to be as short
    ASSERT_TRUE(pair.server->Send(Bytes("x"), kLong).ok());
    ASSERT_TRUE(pair.client->Receive(kLong).ok());
  }
  EXPECT_EQ(pair.client->Receive(absl::Milliseconds(1)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  std::thread leaving([&] { pair.server->Close(); });
  EXPECT_EQ(pair.client->Receive(kLong).status().code(), absl::StatusCode::kUnavailable);
  leaving.join();
}

// One side only sends, so that the ring runs full and wraps in every way.
TEST(StepRingTest, ProducerWaitsForRoom) {
  RingPair pair = MakePair();
  std::thread producer([&] {
    for (uint32_t i = 0; i < 3000; ++i) ASSERT_TRUE(pair.client->Send(MessageAt(i), kLong).ok());
  });
  for (uint32_t i = 0; i < 3000; ++i) {
    const auto message = pair.server->Receive(kLong);
    ASSERT_TRUE(message.ok()) << message.status();
    ASSERT_EQ(*message, absl::MakeConstSpan(MessageAt(i))) << i;
  }
  producer.join();
}

TEST(StepRingTest, EmptyAndLargestMessagesPassAndLargerOnesDoNot) {
  RingPair pair = MakePair();
  std::vector<uint8_t> largest(kMaxRingMessageBytes, 0x5a);
  std::thread producer([&] {
    EXPECT_TRUE(pair.client->Send({}, kLong).ok());
    EXPECT_TRUE(pair.client->Send(largest, kLong).ok());
    EXPECT_TRUE(pair.client->Send(Bytes("end"), kLong).ok());
  });
  EXPECT_TRUE(pair.server->Receive(kLong).value().empty());
  EXPECT_EQ(pair.server->Receive(kLong).value(), absl::MakeConstSpan(largest));
  EXPECT_EQ(pair.server->Receive(kLong).value(), Bytes("end"));
  producer.join();
  largest.push_back(0);
  EXPECT_EQ(pair.client->Send(largest, kLong).code(), absl::StatusCode::kInvalidArgument);
}

TEST(StepRingTest, WaitingEndsAtTheDeadline) {
  RingPair pair = MakePair();
  EXPECT_EQ(pair.client->Receive(absl::Milliseconds(1)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  // Nobody takes what is sent.
  const std::vector<uint8_t> much(kMaxRingMessageBytes);
  EXPECT_EQ(pair.client->Send(much, absl::Milliseconds(1)).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(pair.client->Send(Bytes("x"), kLong).code(), absl::StatusCode::kCancelled);
}

TEST(StepRingTest, CloseWakesBothEnds) {
  RingPair pair = MakePair();
  std::thread other([&] {
    EXPECT_EQ(pair.server->Receive(kLong).status().code(), absl::StatusCode::kUnavailable);
  });
  std::thread same([&] {
    EXPECT_EQ(pair.client->Receive(kLong).status().code(), absl::StatusCode::kCancelled);
  });
  pair.client->Close();
  other.join();
  same.join();
}

TEST(StepRingTest, WhatWasSentBeforeClosingArrives) {
  RingPair pair = MakePair();
  ASSERT_TRUE(pair.client->Send(Bytes("last words"), kLong).ok());
  pair.client->Close();
  EXPECT_EQ(pair.server->Receive(kLong).value(), Bytes("last words"));
  EXPECT_EQ(pair.server->Receive(kLong).status().code(), absl::StatusCode::kUnavailable);
}

TEST(StepRingTest, MemoryThatIsNoRingIsRefused) {
  SharedMemory zeros = SharedMemory::Create("zeros", 4 << 20).value();
  EXPECT_EQ(StepRing::Open(std::move(zeros), OwnedFd(), StepRing::End::kClient).status().code(),
            absl::StatusCode::kFailedPrecondition);
  SharedMemory small = SharedMemory::Create("small", 100).value();
  EXPECT_EQ(StepRing::Open(std::move(small), OwnedFd(), StepRing::End::kClient).status().code(),
            absl::StatusCode::kDataLoss);
}

// A peer that writes nonsense over the shared memory gets an error or a wrong message,
// never a read or write outside the ring (run under ASan).
TEST(StepRingTest, ScribblingPeerDoesNoHarm) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    RingPair pair = MakePair();
    std::mt19937 random(seed);
    for (int i = 0; i < 5; ++i) {
      ASSERT_TRUE(pair.client->Send(MessageAt(i % 3 + 5), absl::Milliseconds(1)).ok());
    }
    for (int i = 0; i < 300; ++i) pair.memory[64 + random() % 900] = static_cast<uint8_t>(random());
    for (int i = 0; i < 8; ++i) {
      pair.server->Receive(absl::Microseconds(10)).status().IgnoreError();
      pair.server->Send(Bytes("answer"), absl::Microseconds(10)).IgnoreError();
    }
  }
}

class StepRingProcessTest : public testing::Test {
 private:
  TestFolder folder_;

 protected:
  const std::string path_ = folder_.File("s");

  std::unique_ptr<StepRing> ConnectWhenThere() {
    absl::StatusOr<std::unique_ptr<StepRing>> ring = absl::UnavailableError("");
    while (absl::IsUnavailable(ring.status())) ring = ConnectStepRing(path_, kLong);
    EXPECT_TRUE(ring.ok()) << ring.status();
    return *std::move(ring);
  }
};

TEST_F(StepRingProcessTest, RequestAndResponseUnderStressBetweenProcesses) {
  TestProcess server([this] {
    auto listener = StepRingListener::Listen(path_).value();
    auto ring = listener->Accept().value();
    return Echo(*ring) == 1500 ? 0 : 1;
  });
  CallEcho(*ConnectWhenThere(), 1500);
  EXPECT_EQ(server.Wait(), 0);
}

TEST_F(StepRingProcessTest, DeathOfThePeerIsNoticed) {
  TestProcess server([this] {
    auto listener = StepRingListener::Listen(path_).value();
    auto ring = listener->Accept().value();
    ring->Receive(kLong).status().IgnoreError();
    pause();
    return 0;
  });
  auto ring = ConnectWhenThere();
  ASSERT_TRUE(ring->Send(Bytes("hello"), kLong).ok());
  server.Kill();
  server.Wait();
  const absl::Duration start = Clock::Steady().Now();
  EXPECT_EQ(ring->Receive(kLong).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_LT(Clock::Steady().Now() - start, absl::Seconds(2));
}

TEST_F(StepRingProcessTest, SleeperNoticesTheDeathOfThePeer) {
  TestProcess server([this] {
    auto listener = StepRingListener::Listen(path_).value();
    auto ring = listener->Accept().value();
    const auto message = ring->Receive(kLong);  // the test's second thread kills us
    return message.ok() ? 1 : 2;
  });
  auto ring = ConnectWhenThere();
  std::thread waiter(
      [&] { EXPECT_EQ(ring->Receive(kLong).status().code(), absl::StatusCode::kUnavailable); });
  server.Kill();
  server.Wait();
  waiter.join();
}

TEST_F(StepRingProcessTest, EachClientGetsItsOwnRing) {
  auto listener = StepRingListener::Listen(path_).value();
  std::thread server([&] {
    auto first = listener->Accept().value();
    auto second = listener->Accept().value();
    EXPECT_TRUE(second->Send(Bytes("two"), kLong).ok());
    EXPECT_TRUE(first->Send(Bytes("one"), kLong).ok());
    EXPECT_EQ(listener->Accept().status().code(), absl::StatusCode::kCancelled);
  });
  auto first = ConnectWhenThere();
  auto second = ConnectWhenThere();
  EXPECT_EQ(first->Receive(kLong).value(), Bytes("one"));
  EXPECT_EQ(second->Receive(kLong).value(), Bytes("two"));
  listener->Stop();
  server.join();
}

}  // namespace
}  // namespace tandem
