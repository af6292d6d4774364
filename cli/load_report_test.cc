#include "cli/load_report.h"

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

RequestRecord Answered(double sent, double first, double last, int32_t tokens) {
  RequestRecord record;
  record.sent = absl::Seconds(sent);
  record.first_token = absl::Seconds(first);
  record.last_token = record.end = absl::Seconds(last);
  record.output_tokens = tokens;
  record.gaps_s.assign(tokens - 1, (last - first) / (tokens - 1));
  return record;
}

TEST(PercentilesTest, AreValuesThatWereSeen) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  const Percentiles p = PercentilesOf(values);
  EXPECT_EQ(p.p50, 50);
  EXPECT_EQ(p.p90, 90);
  EXPECT_EQ(p.p99, 99);
  EXPECT_EQ(p.max, 100);
  EXPECT_EQ(p.mean, 50.5);
  EXPECT_EQ(PercentilesOf({7}).p50, 7);
  EXPECT_EQ(PercentilesOf({}).count, 0);
}

TEST(LoadReportTest, CountsWhatWasAnsweredRefusedAndGood) {
  std::vector<RequestRecord> records = {Answered(0, 0.1, 1.1, 11), Answered(1, 1.5, 3.5, 11)};
  RequestRecord refused;
  refused.sent = absl::Seconds(2);
  refused.end = refused.sent + absl::Milliseconds(3);
  refused.status = absl::ResourceExhaustedError("full");
  records.push_back(refused);
  const LoadReport report =
      MakeLoadReport(records, {.time_to_first_token = absl::Milliseconds(200),
                               .time_per_output_token = absl::Milliseconds(150)});
  EXPECT_EQ(report.num_ok, 2);
  EXPECT_EQ(report.num_rejected, 1);
  EXPECT_EQ(report.num_failed, 0);
  EXPECT_EQ(report.num_good, 1);
  EXPECT_DOUBLE_EQ(report.seconds, 3.5);
  EXPECT_EQ(report.output_tokens, 22);
  EXPECT_NEAR(report.time_to_first_token.p50, 0.1, 1e-9);
  EXPECT_NEAR(report.time_per_output_token.max, 0.2, 1e-9);
  EXPECT_EQ(report.inter_token_latency.count, 20);
  EXPECT_NEAR(report.rejection.max, 0.003, 1e-9);
  const nlohmann::json json = nlohmann::json::parse(ToJson(report, records, "{\"seed\": 3}"));
  EXPECT_EQ(json["settings"]["seed"], 3);
  EXPECT_EQ(json["requests"].size(), 3u);
  EXPECT_NE(ToMarkdown(report).find("2 answered, 1 refused"), std::string::npos);
}

// A time to first token of minus the time since the start counted as good and pulled every
// percentile down.
TEST(LoadReportTest, AnAnswerOfNoTokensHasNoTimeToFirstTokenAndIsGoodIfItEndsAsSoon) {
  RequestRecord soon, late;
  soon.sent = late.sent = absl::Seconds(10);
  soon.end = absl::Seconds(10.1);
  late.end = absl::Seconds(12);
  const std::vector<RequestRecord> records = {Answered(9, 9.15, 9.4, 6), soon, late};
  const LoadReport report =
      MakeLoadReport(records, {.time_to_first_token = absl::Milliseconds(200)});
  EXPECT_EQ(report.num_ok, 3);
  EXPECT_EQ(report.num_empty, 2);
  EXPECT_EQ(report.num_good, 2);
  EXPECT_EQ(report.time_to_first_token.count, 1);
  EXPECT_NEAR(report.time_to_first_token.p50, 0.15, 1e-9);
  EXPECT_EQ(report.inter_token_latency.count, 5);
  EXPECT_EQ(report.total.count, 3);
  const nlohmann::json json = nlohmann::json::parse(ToJson(report, records, "{}"));
  EXPECT_EQ(json["empty"], 2);
  EXPECT_TRUE(json["requests"][0].contains("ttft_s"));
  EXPECT_FALSE(json["requests"][1].contains("ttft_s"));
  EXPECT_NE(ToMarkdown(report).find("2 answers without a token"), std::string::npos);
}

// They were refusals of 0.0 ms, which no server had made.
TEST(LoadReportTest, WhatTheGeneratorDidNotSendIsNoRefusalAndIsSaidFirst) {
  std::vector<RequestRecord> records = {Answered(0, 0.1, 1.1, 11)};
  RequestRecord refused;
  refused.sent = absl::Seconds(1);
  refused.end = absl::Seconds(1.25);
  refused.status = absl::ResourceExhaustedError("full");
  records.push_back(refused);
  RequestRecord not_sent;
  not_sent.due = absl::Seconds(9);
  not_sent.was_sent = false;
  records.push_back(not_sent);
  const LoadReport report = MakeLoadReport(records, {});
  EXPECT_EQ(report.num_not_sent, 1);
  EXPECT_EQ(report.num_rejected, 1);
  EXPECT_EQ(report.num_failed, 0);
  EXPECT_NEAR(report.rejection.p50, 0.25, 1e-9);
  EXPECT_EQ(report.lateness.count, 0);
  EXPECT_NEAR(report.seconds, 1.25, 1e-9);
  const nlohmann::json json = nlohmann::json::parse(ToJson(report, records, "{}"));
  EXPECT_EQ(json["not_sent"], 1);
  EXPECT_EQ(json["requests"][2]["code"], "NOT_SENT");
  EXPECT_TRUE(absl::StartsWith(ToMarkdown(report), "**Not an open loop**: 1 of 3 arrivals"));
  EXPECT_EQ(ToMarkdown(MakeLoadReport({records[0]}, {})).find("open loop"), std::string::npos);
}

// Who was to be sent at 1 s and was at 3 s has waited those 2 s as well.
TEST(LoadReportTest, AnOpenLoopWaitsFromWhenARequestWasDue) {
  RequestRecord late = Answered(3, 3.5, 5, 4);
  late.due = absl::Seconds(1);
  RequestRecord refused;
  refused.due = absl::Seconds(2);
  refused.sent = refused.end = absl::Seconds(3);
  refused.status = absl::ResourceExhaustedError("full");
  const std::vector<RequestRecord> records = {late, refused};
  const LoadReport report =
      MakeLoadReport(records, {.time_to_first_token = absl::Milliseconds(600)});
  EXPECT_NEAR(report.time_to_first_token.p50, 2.5, 1e-9);
  EXPECT_NEAR(report.total.p50, 4.0, 1e-9);
  EXPECT_NEAR(report.rejection.p50, 1.0, 1e-9);
  EXPECT_EQ(report.num_good, 0);
  EXPECT_NEAR(report.seconds, 4.0, 1e-9);
  EXPECT_EQ(report.lateness.count, 2);
  EXPECT_NEAR(report.lateness.p99, 2.0, 1e-9);
  const nlohmann::json json = nlohmann::json::parse(ToJson(report, records, "{}"));
  EXPECT_NEAR(json["lateness_s"]["p99"], 2.0, 1e-9);
  EXPECT_NEAR(json["requests"][0]["due_s"], 1.0, 1e-9);
  EXPECT_NE(ToMarkdown(report).find("generator's lateness"), std::string::npos);
}

TEST(LoadReportTest, FailuresAreCountedApartAndTheFirstIsKept) {
  std::vector<RequestRecord> records(3);
  records[0].status = absl::ResourceExhaustedError("full");
  records[1].status = absl::UnavailableError("gone");
  records[2].status = absl::DeadlineExceededError("late");
  const LoadReport report = MakeLoadReport(records, {});
  EXPECT_EQ(report.num_failed, 2);
  EXPECT_EQ(report.first_failure, records[1].status);
}

TEST(LoadReportTest, NothingSentIsNoFigure) {
  RequestRecord not_sent;
  not_sent.was_sent = false;
  const LoadReport report = MakeLoadReport({not_sent}, {});
  EXPECT_EQ(report.seconds, 0.0);
  EXPECT_EQ(report.time_to_first_token.count, 0);
}

}  // namespace
}  // namespace tandem
