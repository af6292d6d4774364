#include "services/gateway/engine/waiting_queue.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/gateway/engine/engine_sim.h"

namespace tandem::gateway {
namespace {

class WaitingQueueTest : public ::testing::Test {
 protected:
  void Push(int64_t id, const std::string& client, int32_t priority = 0) {
    GenerationRequest request = SimRequest(4, 4);
    request.client = client;
    request.priority = priority;
    queue_.Push(std::make_unique<Sequence>(SequenceId(id), request, nullptr, &SimTokenizer(),
                                           SequenceLimits{.max_tokens = 4}),
                now_);
  }
  int64_t Pop() {
    const Sequence* next = queue_.Next(now_);
    if (next == nullptr) return 0;
    return static_cast<int64_t>(queue_.Remove(next)->id);
  }

  // Whose turn it is: who it was.
  int64_t Serve(int32_t num_tokens) {
    const std::unique_ptr<Sequence> sequence = queue_.Admit(queue_.Next(now_), now_);
    queue_.Charge(sequence->request.client, num_tokens, 0);
    return static_cast<int64_t>(sequence->id);
  }

  absl::Duration now_ = absl::ZeroDuration();
  WaitingQueue queue_{absl::Seconds(5)};
};

TEST_F(WaitingQueueTest, EqualsComeInOrder) {
  for (int64_t id = 1; id <= 3; ++id) Push(id, "a");
  EXPECT_EQ(Pop(), 1);
  EXPECT_EQ(Pop(), 2);
  EXPECT_EQ(Pop(), 3);
  EXPECT_EQ(Pop(), 0);
}

TEST_F(WaitingQueueTest, APriorityGoesBeforeAndWaitingMakesUpForIt) {
  Push(1, "a", 0);
  Push(2, "a", 2);
  EXPECT_EQ(queue_.Next(now_)->id, SequenceId(2));
  now_ += absl::Seconds(9);
  Push(3, "a", 2);
  EXPECT_EQ(Pop(), 2);
  EXPECT_EQ(queue_.Next(now_)->id, SequenceId(3));
  now_ += absl::Seconds(1);
  Push(4, "a", 1);
  EXPECT_EQ(Pop(), 1);  // has waited for 2 of priority, and is older
}

// Higher priorities come without end: the lowest is served all the same.
TEST_F(WaitingQueueTest, NobodyWaitsForEver) {
  Push(1, "a", -10);
  for (int64_t id = 2;; ++id) {
    Push(id, "a", 10);
    if (Pop() == 1) break;
    now_ += absl::Seconds(1);
    ASSERT_LT(now_, absl::Seconds(130));
  }
}

TEST_F(WaitingQueueTest, AClientWithManyRequestsDoesNotHoldUpOneWithFew) {
  for (int64_t id = 1; id <= 20; ++id) Push(id, "many");
  queue_.Charge("many", 1000, 100);
  Push(21, "few");
  // The newcomer is taken to have had as much as "many"; the older goes first.
  EXPECT_EQ(Pop(), 1);
  queue_.Charge("many", 10, 0);
  EXPECT_EQ(Pop(), 21);
}

// What a flood has left to wait for hours is old, and still not before others' first requests.
TEST_F(WaitingQueueTest, AFloodDoesNotHoldUpOthersHoweverOldItIs) {
  for (const int32_t seconds : {0, 6, 20, 600}) {
    queue_ = WaitingQueue(absl::Seconds(5));
    for (int64_t id = 1; id <= 200; ++id) Push(id, "flood");
    now_ += absl::Seconds(seconds);
    Push(1000, "few");
    int32_t num_before = 0;
    while (Serve(/*num_tokens=*/100) != 1000) {
      ++num_before;
      now_ += absl::Seconds(1);
    }
    EXPECT_LE(num_before, 1) << seconds << " s after the flood";
  }
}

// Newcomers without end have all been served less than one that was served a lot.
TEST_F(WaitingQueueTest, AClientThatWasServedALotWaitsForAMinuteAtMost) {
  queue_.Charge("a lot", 1000000, 0);
  Push(1, "one of many");
  Push(2, "a lot");
  int64_t id = 2;
  for (int64_t served = 0; served != 2;) {
    ++id;
    Push(id, absl::StrCat("one of many ", id));
    served = Serve(/*num_tokens=*/100);
    now_ += absl::Seconds(1);
    ASSERT_LT(now_, absl::Seconds(65));
  }
}

TEST_F(WaitingQueueTest, IdlingSavesUpNothingWhileNobodyWaits) {
  Push(1, "busy");
  Serve(/*num_tokens=*/1000);
  Push(2, "busy");
  Serve(/*num_tokens=*/1000);
  Push(3, "new");
  EXPECT_GE(queue_.ServiceOf("new"), 1000.0);
}

TEST_F(WaitingQueueTest, WhoMustGoAgainAndAgainIsRankedHigherForIt) {
  Push(1, "a", -1);
  for (int32_t i = 0; i < 10; ++i) {
    std::unique_ptr<Sequence> sequence = queue_.Admit(queue_.Next(now_), now_);
    EXPECT_EQ(sequence->rank, -1 + i / 5);
    sequence->is_started = true;
    queue_.Push(std::move(sequence), now_);
    now_ += absl::Seconds(1);
  }
}

TEST_F(WaitingQueueTest, WhoDoesNotReadHasNoTurn) {
  Push(1, "a");
  std::unique_ptr<Sequence> sequence = queue_.Admit(queue_.Next(now_), now_);
  Sequence* stalled = sequence.get();
  stalled->is_started = true;
  stalled->congested_since = now_;
  queue_.Push(std::move(sequence), now_);
  EXPECT_EQ(queue_.Next(now_), nullptr);
  EXPECT_FALSE(queue_.HasPreempted());
  Push(2, "a");
  EXPECT_EQ(queue_.Next(now_)->id, SequenceId(2));
  stalled->congested_since = absl::InfiniteDuration();
  EXPECT_TRUE(queue_.HasPreempted());
  EXPECT_EQ(queue_.Next(now_), stalled);
}

TEST_F(WaitingQueueTest, ClientsGetEqualSharesOfTokensNotOfRequests) {
  int64_t id = 0;
  for (int i = 0; i < 300; ++i) {
    Push(++id, "long");
    Push(++id, "short");
  }
  std::map<std::string, int32_t> tokens;
  for (int i = 0; i < 200; ++i) {
    const Sequence* next = queue_.Next(now_);
    const std::string client = next->request.client;
    queue_.Remove(next);
    const int32_t cost = client == "long" ? 300 : 100;
    tokens[client] += cost;
    queue_.Charge(client, cost, 0);
  }
  EXPECT_NEAR(tokens["long"], tokens["short"], 400);
}

TEST_F(WaitingQueueTest, ThousandsOfClientsAreNotRememberedForEver) {
  for (int i = 0; i < 20000; ++i) queue_.Charge(std::to_string(i), 1, 1);
  EXPECT_EQ(queue_.ServiceOf("0"), 0.0);
  EXPECT_GT(queue_.ServiceOf("19999"), 0.0);
}

}  // namespace
}  // namespace tandem::gateway
