#include "cli/load_generator.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>
#include <thread>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

namespace v1 = gateway::v1;

using OnEvent = std::function<bool(const v1::GenerateResponse&)>;

v1::GenerateResponse Delta(int32_t num_tokens) {
  v1::GenerateResponse event;
  for (int32_t i = 0; i < num_tokens; ++i) event.mutable_delta()->add_token_ids(i);
  return event;
}

// Three tokens in two messages.
absl::Status Answer(const v1::GenerateRequest&, const OnEvent& on_event) {
  on_event(Delta(1));
  on_event(Delta(2));
  v1::GenerateResponse end;
  end.mutable_finished()->mutable_usage()->set_prompt_tokens(7);
  on_event(end);
  return absl::OkStatus();
}

std::vector<PlannedRequest> PlanOf(const LoadOptions& options) {
  return PlanLoad(options, {}, /*vocabulary_size=*/100, {});
}

LoadOptions SmallLoad(int32_t num_requests, double rate) {
  return {.num_requests = num_requests, .rate = rate, .prompt_tokens = {2, 2}};
}

void Ignore(int32_t) {}

TEST(LoadPlanTest, IsTheSameForTheSameSeedAndSharesItsPrefixes) {
  const LoadOptions options = {.num_requests = 40,
                               .rate = 10,
                               .prompt_tokens = {5, 9},
                               .output_tokens = {3, 3},
                               .num_shared_prefixes = 2,
                               .shared_prefix_tokens = 6,
                               .seed = 4};
  const auto plan = PlanLoad(options, {}, 1000, {});
  const auto again = PlanLoad(options, {}, 1000, {});
  ASSERT_EQ(plan.size(), 40u);
  for (size_t i = 0; i < plan.size(); ++i) {
    EXPECT_EQ(plan[i].request.SerializeAsString(), again[i].request.SerializeAsString());
    EXPECT_EQ(plan[i].due, again[i].due);
    const auto& ids = plan[i].request.token_ids().ids();
    EXPECT_GE(ids.size(), 11);
    EXPECT_LE(ids.size(), 15);
    for (int j = 0; j < 6; ++j) EXPECT_EQ(ids[j], plan[i % 2].request.token_ids().ids()[j]);
  }
  // About 40 arrivals at 10 a second.
  EXPECT_GT(plan.back().due, absl::Seconds(2));
  EXPECT_LT(plan.back().due, absl::Seconds(8));
}

TEST(LoadGeneratorTest, AClosedLoopHasAsManyClientsAsItWasToldTo) {
  LoadOptions options = SmallLoad(/*num_requests=*/12, /*rate=*/0.0);
  options.concurrency = 3;
  std::mutex mutex;
  int32_t num_now = 0, most = 0;
  const GenerateCall generate = [&](const v1::GenerateRequest& request, const OnEvent& on_event) {
    {
      const std::lock_guard lock(mutex);
      most = std::max(most, ++num_now);
    }
    const absl::Status status = Answer(request, on_event);
    const std::lock_guard lock(mutex);
    --num_now;
    return status;
  };
  std::vector<int32_t> progress;
  const auto records = RunLoad(generate, options, PlanOf(options),
                               [&](int32_t num_over) { progress.push_back(num_over); });
  EXPECT_LE(most, 3);
  EXPECT_EQ(progress.back(), 12);
  ASSERT_EQ(records.size(), 12u);
  for (const RequestRecord& record : records) {
    EXPECT_TRUE(record.was_sent);
    EXPECT_EQ(record.due, std::nullopt);
    EXPECT_EQ(record.output_tokens, 3);
    EXPECT_EQ(record.prompt_tokens, 7);
    EXPECT_EQ(record.gaps_s.size(), 1u);
    EXPECT_LE(record.sent, record.first_token);
    EXPECT_LE(record.first_token, record.last_token);
    EXPECT_LE(record.last_token, record.end);
  }
}

// Eight at a time was the limit of an open loop that named none; the rest was dropped.
TEST(LoadGeneratorTest, AnOpenLoopSendsWhetherEarlierOnesAreOverOrNot) {
  constexpr int kRequests = 60;
  const LoadOptions options = SmallLoad(kRequests, /*rate=*/2000.0);
  std::atomic<int> num_in_flight = 0;
  absl::Notification all_are_in_flight;
  const GenerateCall generate = [&](const v1::GenerateRequest& request, const OnEvent& on_event) {
    if (++num_in_flight == kRequests) all_are_in_flight.Notify();
    all_are_in_flight.WaitForNotification();
    return Answer(request, on_event);
  };
  const auto plan = PlanOf(options);
  const auto records = RunLoad(generate, options, plan, Ignore);
  for (int i = 0; i < kRequests; ++i) {
    EXPECT_TRUE(records[i].was_sent);
    EXPECT_TRUE(records[i].status.ok());
    EXPECT_EQ(records[i].due, plan[i].due);
    EXPECT_LE(*records[i].due, records[i].sent);
  }
}

TEST(LoadGeneratorTest, AnOpenLoopWithALimitSaysWhatItDidNotSend) {
  LoadOptions options = SmallLoad(/*num_requests=*/10, /*rate=*/2000.0);
  options.concurrency = 2;
  absl::Notification all_are_due;
  const GenerateCall generate = [&](const v1::GenerateRequest& request, const OnEvent& on_event) {
    all_are_due.WaitForNotification();
    return Answer(request, on_event);
  };
  const auto records = RunLoad(generate, options, PlanOf(options), [&](int32_t num_over) {
    if (num_over == 8 && !all_are_due.HasBeenNotified()) all_are_due.Notify();
  });
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(records[i].was_sent, i < 2);
    EXPECT_TRUE(records[i].due.has_value());
  }
  const LoadReport report = MakeLoadReport(records, {});
  EXPECT_EQ(report.num_ok, 2);
  EXPECT_EQ(report.num_not_sent, 8);
  EXPECT_EQ(report.num_rejected, 0);
}

// A generator that could not keep up hid what its clients waited.
TEST(LoadGeneratorTest, TimesBeginWhenARequestWasDueHoweverLateItIsSent) {
  const LoadOptions options = SmallLoad(/*num_requests=*/1, /*rate=*/1.0);
  std::vector<PlannedRequest> plan = PlanOf(options);
  plan[0].due = -absl::Seconds(5);
  const LoadReport report = MakeLoadReport(RunLoad(Answer, options, plan, Ignore), {});
  EXPECT_GE(report.time_to_first_token.p50, 5.0);
  EXPECT_GE(report.lateness.p99, 5.0);
}

// There was a thread for each request until the end of the test.
TEST(LoadGeneratorTest, ThreadsServeManyRequests) {
  LoadOptions options = SmallLoad(/*num_requests=*/500, /*rate=*/5000.0);
  options.concurrency = 4;
  std::mutex mutex;
  std::set<std::thread::id> threads;
  const GenerateCall generate = [&](const v1::GenerateRequest& request, const OnEvent& on_event) {
    {
      const std::lock_guard lock(mutex);
      threads.insert(std::this_thread::get_id());
    }
    return Answer(request, on_event);
  };
  const LoadReport report = MakeLoadReport(RunLoad(generate, options, PlanOf(options), Ignore), {});
  EXPECT_EQ(report.num_ok + report.num_not_sent, 500);
  EXPECT_LE(threads.size(), 4u);
}

TEST(LoadGeneratorTest, ErrorsAndEmptyAnswersAreRecordedAsTheyEnd) {
  const LoadOptions options = SmallLoad(/*num_requests=*/3, /*rate=*/0.0);
  std::atomic<int> num_calls = 0;
  const GenerateCall generate = [&](const v1::GenerateRequest&, const OnEvent&) {
    const int call = num_calls++;
    if (call == 0) return absl::ResourceExhaustedError("full");
    return call == 1 ? absl::UnavailableError("gone") : absl::OkStatus();
  };
  const LoadReport report = MakeLoadReport(RunLoad(generate, options, PlanOf(options), Ignore), {});
  EXPECT_EQ(report.num_rejected, 1);
  EXPECT_EQ(report.num_failed, 1);
  EXPECT_EQ(report.num_empty, 1);
  EXPECT_EQ(report.time_to_first_token.count, 0);
  EXPECT_GE(report.total.p50, 0.0);
}

TEST(LoadOptionsTest, AnOpenLoopIsNotLimitedUnlessTold) {
  EXPECT_EQ(MostInFlight({}), kClosedConcurrency);
  EXPECT_EQ(MostInFlight({.rate = 4.0}), kMaxConcurrency);
  EXPECT_EQ(MostInFlight({.rate = 4.0, .concurrency = 8}), 8);
}

}  // namespace
}  // namespace tandem
