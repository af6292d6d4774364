#include "common/telemetry/metrics.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(MetricNamesTest, FollowThePrometheusRules) {
  std::set<std::string_view> names;
  for (const MetricSpec& spec : kMetrics) {
    SCOPED_TRACE(spec.name);
    EXPECT_TRUE(names.insert(spec.name).second);
    EXPECT_EQ(spec.name.substr(0, 7), "tandem_");
    for (const char c : spec.name) {
      EXPECT_TRUE(std::islower(c) || std::isdigit(c) || c == '_') << c;
    }
    EXPECT_EQ(spec.name.ends_with("_total"), spec.type == MetricType::kCounter);
    EXPECT_EQ(spec.buckets != Buckets::kNone, spec.type == MetricType::kHistogram);
    ASSERT_FALSE(spec.help.empty());
    EXPECT_EQ(spec.help.back(), '.');
    for (const std::string_view bad : {"_perc", "_ms", "_milliseconds", "_mb", "_count"}) {
      EXPECT_FALSE(spec.name.ends_with(bad));
    }
  }
}

TEST(MetricsTest, KnownSeriesAreThereFromTheStart) {
  const Metrics metrics;
  const std::string page = metrics.Render();
  EXPECT_THAT(page, HasSubstr("tandem_kv_pages{state=\"used\"} 0"));
  EXPECT_THAT(page, HasSubstr("tandem_worker_up{role=\"draft\"} 0"));
  EXPECT_THAT(page, HasSubstr("tandem_worker_restarts_total{reason=\"crash\",role=\"target\"} 0"));
  EXPECT_THAT(page, HasSubstr("tandem_spec_bypass_total{reason=\"not_worth_it\"} 0"));
  EXPECT_THAT(page, HasSubstr("tandem_time_to_first_token_seconds_count 0"));
  EXPECT_THAT(page, HasSubstr("process_resident_memory_bytes"));
  EXPECT_THAT(page, Not(HasSubstr("tandem_build_info{")));
}

TEST(MetricsTest, CountsWhatItIsTold) {
  Metrics metrics;
  metrics.Add(Metric::kRequests, {"Generate", "CANCELLED", "none"});
  metrics.Add(Metric::kRequests, {"Generate", "CANCELLED", "none"});
  metrics.Set(Metric::kKvPages, {"used"}, 7);
  metrics.Observe(Metric::kTimeToFirstToken, 0.03);
  const std::string page = metrics.Render();
  EXPECT_THAT(page, HasSubstr("tandem_requests_total{code=\"CANCELLED\",finish_reason=\"none\","
                              "method=\"Generate\"} 2"));
  EXPECT_THAT(page, HasSubstr("tandem_kv_pages{state=\"used\"} 7"));
  EXPECT_THAT(page, HasSubstr("tandem_time_to_first_token_seconds_bucket{le=\"0.04\"} 1"));
  EXPECT_THAT(page, HasSubstr("tandem_time_to_first_token_seconds_bucket{le=\"0.02\"} 0"));
}

TEST(MetricsTest, EverySeriesTellsTheModelOnceItIsKnown) {
  Metrics metrics;
  EXPECT_THAT(metrics.Render(), Not(HasSubstr("model=")));
  metrics.SetModel("tiny");
  EXPECT_THAT(metrics.Render(), HasSubstr("tandem_requests_running{model=\"tiny\"} 0"));
  EXPECT_THAT(metrics.Render(), HasSubstr("tandem_kv_pages{state=\"used\",model=\"tiny\"} 0"));
}

TEST(MetricsTest, AnInfoTellsOnlyWhatIsTrueNow) {
  Metrics metrics;
  metrics.SetInfo(Metric::kModelInfo, {"target", "a", "gguf", "Q4_1", "7", "cpu"});
  metrics.SetInfo(Metric::kModelInfo, {"draft", "b", "gguf", "Q4_1", "7", "cpu"});
  metrics.SetInfo(Metric::kModelInfo, {"target", "a", "gguf", "Q8_0", "7", "cpu"});
  const std::string page = metrics.Render();
  EXPECT_THAT(page, Not(HasSubstr("name=\"a\",parameters=\"7\",quantization=\"Q4_1\"")));
  EXPECT_THAT(page, HasSubstr("name=\"a\",parameters=\"7\",quantization=\"Q8_0\""));
  EXPECT_THAT(page, HasSubstr("name=\"b\",parameters=\"7\",quantization=\"Q4_1\""));
}

TEST(MetricsTest, AGaugeOfOneThingForgetsTheOneBefore) {
  Metrics metrics;
  metrics.SetOnly(Metric::kVramTotal, {"a"}, 1);
  metrics.SetOnly(Metric::kVramTotal, {"b"}, 2);
  EXPECT_THAT(metrics.Render(), HasSubstr("tandem_vram_total_bytes{gpu=\"b\"} 2"));
  EXPECT_THAT(metrics.Render(), Not(HasSubstr("gpu=\"a\"")));
}

TEST(MetricsTest, FiguresThatAreReadAreReadAtEachLook) {
  Metrics metrics;
  int looks = 0;
  metrics.BeforeLook([&] { metrics.Set(Metric::kVramBudget, ++looks); });
  EXPECT_THAT(metrics.Render(), HasSubstr("tandem_vram_budget_bytes 1"));
  EXPECT_THAT(metrics.Render(), HasSubstr("tandem_vram_budget_bytes 2"));
}

// Label values come from code, never from a request: the page has one size.
TEST(MetricsTest, ThePageIsBounded) {
  const std::string page = Metrics().Render();
  EXPECT_LT(std::count(page.begin(), page.end(), '\n'), 1200);
}

TEST(MetricsServerTest, TakesAFreePortAndSaysWhichOneIsTaken) {
  const Metrics metrics;
  const auto server = MetricsServer::Start("127.0.0.1:0", metrics);
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string address = (*server)->address();
  EXPECT_FALSE(address.ends_with(":0")) << address;
  const auto second = MetricsServer::Start(address, metrics);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(second.status().message(), HasSubstr(address));
}

TEST(MetricsServerTest, RefusesWhatIsNoAddress) {
  const Metrics metrics;
  for (const char* listen : {"", "9090", "localhost", "localhost:x", "localhost:70000"}) {
    EXPECT_EQ(MetricsServer::Start(listen, metrics).status().code(),
              absl::StatusCode::kInvalidArgument)
        << listen;
  }
}

}  // namespace
}  // namespace tandem
