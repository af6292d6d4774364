#include "cli/load_report.h"

#include <nlohmann/json.hpp>

#include "cli/bench_serve.h"
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

TEST(TokenRangeTest, IsANumberOrTwo) {
  EXPECT_EQ(ParseTokenRange("12")->high, 12);
  EXPECT_EQ(ParseTokenRange("3:9")->low, 3);
  for (const char* text : {"", "x", "0", "9:3", "1:2:3", "-4"}) {
    EXPECT_FALSE(ParseTokenRange(text).ok()) << text;
  }
}

}  // namespace
}  // namespace tandem
