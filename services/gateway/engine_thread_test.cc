#include "services/gateway/engine_thread.h"

#include <atomic>
#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/gateway/engine/engine_sim.h"

namespace tandem::gateway {
namespace {

// A client on other threads than the engine's.
class WaitingSink final : public GenerationSink {
 public:
  void OnStarted(const StartedInfo&) override {}
  void OnDelta(TokenDelta delta) override {
    token_ids.insert(token_ids.end(), delta.token_ids.begin(), delta.token_ids.end());
    Set(&has_delta_);
  }
  void OnFinished(const FinishedInfo&) override {
    if (on_finished) on_finished();
    Set(&is_over_);
  }
  void OnError(const absl::Status& error) override {
    status = error;
    Set(&is_over_);
  }
  bool IsCongested() const override { return is_congested; }

  void AwaitDelta() { Await(&has_delta_); }
  void AwaitEnd() { Await(&is_over_); }

  std::atomic<bool> is_congested = false;
  std::function<void()> on_finished;
  std::vector<int32_t> token_ids;
  absl::Status status;

 private:
  void Set(bool* flag) {
    const std::lock_guard lock(mutex_);
    *flag = true;
    changed_.notify_all();
  }
  void Await(const bool* flag) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(30), [flag] { return *flag; }));
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool has_delta_ = false;
  bool is_over_ = false;
};

class EngineThreadTest : public ::testing::Test {
 protected:
  std::unique_ptr<EngineThread> Start(int32_t max_requests, int32_t max_requests_per_client = 0,
                                      int64_t max_queued_tokens = 1 << 20) {
    return std::make_unique<EngineThread>(
        std::make_unique<Engine>(EngineOptions{.max_waiting = max_requests}, &sim_.clock,
                                 &SimTokenizer(), &sim_.target, &sim_.draft, &sim_.fence,
                                 &sim_.observer),
        AdmissionLimits{.max_requests = max_requests,
                        .max_requests_per_client = max_requests_per_client,
                        .max_queued_tokens = max_queued_tokens});
  }
  static GenerationRequest Request(const std::string& id, uint64_t seed = 1) {
    GenerationRequest request = SimRequest(5, 20, seed);
    request.request_id = id;
    return request;
  }
  // One that stays in the engine until it is allowed to go on.
  static std::shared_ptr<WaitingSink> Stuck() {
    auto sink = std::make_shared<WaitingSink>();
    sink->is_congested = true;
    return sink;
  }

  EngineSim sim_;  // its clock, workers and pool; its engine is not used
};

TEST_F(EngineThreadTest, RequestsOfManyThreadsGetTheirAnswers) {
  const auto engine = Start(64);
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&engine, i] {
      const GenerationRequest request = Request(absl::StrCat("r", i), i);
      const auto sink = std::make_shared<WaitingSink>();
      ASSERT_TRUE(engine->Submit(request, sink).ok());
      sink->AwaitEnd();
      EXPECT_TRUE(sink->status.ok()) << sink->status;
      EXPECT_EQ(sink->token_ids, PlainAnswer(request, SimOptions().context_length).token_ids);
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(engine->WaitUntilIdle(absl::Seconds(30)));
  EXPECT_EQ(engine->num_requests(), 0);
}

TEST_F(EngineThreadTest, OneClientCannotTakeAllPlaces) {
  const auto engine = Start(8, /*max_requests_per_client=*/2);
  std::vector<std::shared_ptr<WaitingSink>> sinks;
  const auto submit = [&](const std::string& client) {
    sinks.push_back(Stuck());
    GenerationRequest request = Request(absl::StrCat("r", sinks.size()));
    request.client = client;
    return engine->Submit(request, sinks.back()).status();
  };
  EXPECT_TRUE(submit("a").ok());
  EXPECT_TRUE(submit("a").ok());
  EXPECT_TRUE(absl::IsResourceExhausted(engine->CheckRoom("a")));
  EXPECT_TRUE(absl::IsResourceExhausted(submit("a")));
  EXPECT_TRUE(engine->CheckRoom("b").ok());
  EXPECT_TRUE(submit("b").ok());
  for (const auto& sink : sinks) sink->is_congested = false;
  engine->Wake();
  EXPECT_TRUE(engine->WaitUntilIdle(absl::Seconds(30)));
  EXPECT_TRUE(submit("a").ok());
}

TEST_F(EngineThreadTest, LongPromptsFillTheQueueBeforeTheirNumberDoes) {
  const auto engine = Start(8, 0, /*max_queued_tokens=*/12);
  const auto first = Stuck();
  const auto second = Stuck();
  ASSERT_TRUE(engine->Submit(Request("a"), first).ok());
  ASSERT_TRUE(engine->Submit(Request("b"), second).ok());
  const auto refused = engine->Submit(Request("c"), Stuck());
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  EXPECT_NE(refused.status().message().find("limit of 12"), absl::string_view::npos);
  first->is_congested = second->is_congested = false;
  engine->Wake();
  EXPECT_TRUE(engine->WaitUntilIdle(absl::Seconds(30)));
}

// A prompt of 1 MiB was parsed, rendered and tokenized before it was refused.
TEST_F(EngineThreadTest, WhenPromptsFillTheQueueTheNextIsRefusedUnseen) {
  const auto engine = Start(8, 0, /*max_queued_tokens=*/10);
  const auto first = Stuck();
  const auto second = Stuck();
  ASSERT_TRUE(engine->Submit(Request("a"), first).ok());
  EXPECT_TRUE(engine->CheckRoom("b").ok());
  ASSERT_TRUE(engine->Submit(Request("b"), second).ok());
  const absl::Status refused = engine->CheckRoom("c");
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_NE(refused.message().find("limit is 10"), absl::string_view::npos);
  first->is_congested = second->is_congested = false;
  engine->Wake();
  EXPECT_TRUE(engine->WaitUntilIdle(absl::Seconds(30)));
  EXPECT_TRUE(engine->CheckRoom("c").ok());
}

TEST_F(EngineThreadTest, TooManyRequestsAreRefusedAtOnce) {
  const auto engine = Start(2);
  const auto first = Stuck();
  const auto second = Stuck();
  ASSERT_TRUE(engine->Submit(Request("a"), first).ok());
  ASSERT_TRUE(engine->Submit(Request("b"), second).ok());
  const auto refused = engine->Submit(Request("c"), Stuck());
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  EXPECT_FALSE(engine->WaitUntilIdle(absl::ZeroDuration()));
  first->is_congested = second->is_congested = false;
  engine->Wake();
  EXPECT_TRUE(engine->WaitUntilIdle(absl::Seconds(30)));
}

TEST_F(EngineThreadTest, ARequestIdIsFreeAgainWhenTheClientHearsOfTheEnd) {
  const auto engine = Start(8);
  const auto first = Stuck();
  const auto again = std::make_shared<WaitingSink>();
  first->on_finished = [&] { EXPECT_TRUE(engine->Submit(Request("same"), again).ok()); };
  ASSERT_TRUE(engine->Submit(Request("same"), first).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(engine->Submit(Request("same"), Stuck()).status()));
  first->is_congested = false;
  engine->Wake();
  first->AwaitEnd();
  again->AwaitEnd();
  EXPECT_TRUE(again->status.ok());
}

TEST_F(EngineThreadTest, CancelEndsARequestOnceAndUnknownTicketsAreIgnored) {
  const auto engine = Start(8);
  const auto sink = Stuck();
  const auto ticket = engine->Submit(Request("a"), sink);
  ASSERT_TRUE(ticket.ok());
  engine->Cancel(*ticket, absl::CancelledError("enough"));
  engine->Cancel(*ticket, absl::CancelledError("again"));
  engine->Cancel(TicketId(12345), absl::CancelledError("nobody"));
  sink->AwaitEnd();
  EXPECT_TRUE(absl::IsCancelled(sink->status)) << sink->status;
  EXPECT_TRUE(engine->WaitUntilIdle(absl::Seconds(30)));
}

TEST_F(EngineThreadTest, WhatTheEngineRefusesComesAsAnError) {
  const auto engine = Start(8);
  GenerationRequest request = SimRequest(SimOptions().context_length + 1, 5);
  request.request_id = "long";
  const auto sink = std::make_shared<WaitingSink>();
  ASSERT_TRUE(engine->Submit(request, sink).ok());
  sink->AwaitEnd();
  EXPECT_TRUE(absl::IsInvalidArgument(sink->status)) << sink->status;
}

TEST_F(EngineThreadTest, TheEndOfTheThreadEndsWhatRuns) {
  auto engine = Start(8);
  const auto sink = Stuck();
  ASSERT_TRUE(engine->Submit(Request("a"), sink).ok());
  engine->Stop();
  sink->AwaitEnd();
  EXPECT_TRUE(absl::IsUnavailable(sink->status)) << sink->status;
  EXPECT_TRUE(absl::IsUnavailable(engine->Submit(Request("b"), Stuck()).status()));
  engine->Cancel(TicketId(1), absl::CancelledError("late"));
  engine.reset();
}

}  // namespace
}  // namespace tandem::gateway
