#include "services/gateway/metrics_observer.h"

#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "common/speculation/draft_plan.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tandem::gateway {
namespace {

using testing::HasSubstr;
using testing::Not;

class MetricsObserverTest : public testing::Test {
 protected:
  // A worker that loaded 4000 bytes of weights.
  static WorkerDescription Worker(const std::string& device) {
    WorkerDescription worker;
    worker.name = "m";
    worker.model_path = "/models/m.gguf";
    worker.quantization = "Q4_1";
    worker.device = device;
    worker.weight_bytes = 4000;
    worker.workspace_bytes = 200;
    worker.other_bytes = 300;
    return worker;
  }
  static WorkerDescription GpuTarget() {
    WorkerDescription worker = Worker("cuda");
    worker.device_name = "Fine Card";
    worker.num_pages = 10;
    worker.page_bytes = 50;
    worker.device_total_bytes = 8000;
    worker.device_free_bytes = 1500;
    return worker;
  }
  testing::AssertionResult Shows(const std::string& line) const {
    const std::string page = metrics_.Render();
    if (page.find(line + "\n") != std::string::npos) return testing::AssertionSuccess();
    const std::string name = line.substr(0, line.find('{'));
    std::string found;
    for (size_t at = page.find("\n" + name); at != std::string::npos;
         at = page.find("\n" + name, at + 1)) {
      found += page.substr(at, page.find('\n', at + 1) - at);
    }
    return testing::AssertionFailure() << line << " is not among" << found;
  }

  Metrics metrics_;
  MetricsObserver observer_{&metrics_};
};

TEST_F(MetricsObserverTest, MemoryIsThatOfTheDeviceWhereItHasItsOwn) {
  observer_.OnConnected(Role::kDraft, Worker("cuda"), {});
  observer_.OnConnected(Role::kTarget, GpuTarget(), {});
  EXPECT_TRUE(Shows("tandem_vram_total_bytes{gpu=\"Fine Card\",model=\"m\"} 8000"));
  EXPECT_TRUE(Shows("tandem_vram_free_bytes{gpu=\"Fine Card\",model=\"m\"} 1500"));
  EXPECT_TRUE(Shows("tandem_vram_budget_bytes{model=\"m\"} 8900"));
  // 6500 are used, 2 * 4500 + 500 are accounted for.
  EXPECT_TRUE(Shows("tandem_vram_unaccounted_bytes{model=\"m\"} 0"));

  WorkerDescription later = GpuTarget();
  later.device_total_bytes = 20000;
  later.device_free_bytes = 10000;
  later.other_bytes = 310;
  observer_.OnAskedAgain(Role::kTarget, later);
  EXPECT_TRUE(Shows("tandem_vram_free_bytes{gpu=\"Fine Card\",model=\"m\"} 10000"));
  EXPECT_TRUE(Shows("tandem_vram_unaccounted_bytes{model=\"m\"} 490"));
  EXPECT_THAT(metrics_.Render(), HasSubstr("device=\"cuda\""));
}

TEST_F(MetricsObserverTest, OnACpuMemoryIsTheHosts) {
  observer_.OnConnected(Role::kTarget, Worker("cpu"), {});
  EXPECT_THAT(metrics_.Render(), HasSubstr("tandem_vram_total_bytes{gpu=\"host\",model=\"m\"}"));
  EXPECT_FALSE(Shows("tandem_vram_total_bytes{gpu=\"host\",model=\"m\"} 0"));
  EXPECT_THAT(metrics_.Render(), HasSubstr("device=\"cpu\""));
}

TEST_F(MetricsObserverTest, MemoryIsNobodysBeforeATargetSaidWhereItRuns) {
  EXPECT_THAT(metrics_.Render(), Not(HasSubstr("tandem_vram_total_bytes{")));
  observer_.OnConnected(Role::kTarget, Worker("cpu"), {});
  observer_.OnConnected(Role::kTarget, GpuTarget(), {});  // started anew, elsewhere
  EXPECT_THAT(metrics_.Render(), Not(HasSubstr("gpu=\"host\"")));
}

TEST_F(MetricsObserverTest, EachProcessTellsOfWhichBuildItIs) {
  WorkerDescription worker = Worker("cpu");
  worker.build_version = "1.2.3";
  worker.build_commit = "abc";
  worker.build_cuda = "none";
  observer_.OnConnected(Role::kDraft, worker, {});
  EXPECT_TRUE(
      Shows("tandem_build_info{commit=\"abc\",cuda=\"none\",role=\"draft\","
            "version=\"1.2.3\"} 1"));
  worker.build_version = "1.2.4";  // its container was replaced
  observer_.OnConnected(Role::kDraft, worker, {.is_restart = true});
  EXPECT_THAT(metrics_.Render(), Not(HasSubstr("1.2.3")));
}

TEST_F(MetricsObserverTest, AStartIsToldByItsPhases) {
  WorkerDescription worker = Worker("cpu");
  worker.map = absl::Milliseconds(250);
  worker.upload = absl::Seconds(2);
  worker.warmup = absl::Milliseconds(500);
  observer_.OnConnected(Role::kDraft, worker, {});
  const std::string name = "tandem_model_load_duration_seconds";
  EXPECT_TRUE(Shows(name + "{phase=\"map\",role=\"draft\"} 0.25"));
  EXPECT_TRUE(Shows(name + "{phase=\"upload\",role=\"draft\"} 2"));
  EXPECT_TRUE(Shows(name + "{phase=\"warmup\",role=\"draft\"} 0.5"));
}

TEST_F(MetricsObserverTest, RestartsAreCountedByWhatEndedTheWorker) {
  const auto restart = [this](const std::string& reason, bool had_hung) {
    WorkerDescription worker = Worker("cpu");
    worker.restart_reason = reason;
    observer_.OnConnected(Role::kDraft, worker, {.is_restart = true, .had_hung = had_hung});
  };
  const auto count = [this](const std::string& reason, int number) {
    return Shows("tandem_worker_restarts_total{reason=\"" + reason + "\",role=\"draft\"} " +
                 std::to_string(number));
  };
  for (const char* reason : {"crash", "hang", "oom", "xid"}) {
    restart(reason, false);
    EXPECT_TRUE(count(reason, 1));
  }
  // Where nobody restarts it with a reason (the kubelet) the link's own view counts.
  restart("", false);
  EXPECT_TRUE(count("crash", 2));
  restart("", true);
  EXPECT_TRUE(count("hang", 2));
  // No label that a worker made up.
  restart("nonsense", false);
  EXPECT_TRUE(count("crash", 3));
}

TEST_F(MetricsObserverTest, WhatARoundMadeIsCountedAtItsEnd) {
  for (int32_t i = 0; i < 3; ++i) {
    observer_.OnSequenceStep({.num_committed = 1, .bypass_reason = bypass::kOff});
  }
  observer_.OnSequenceStep({.num_committed = 2, .bypass_reason = bypass::kNoPages});
  const std::string bypassed = "tandem_spec_bypass_total{reason=";
  for (int32_t i = 0; i < 2; ++i) {  // and not again with the next
    observer_.OnGauges({});
    EXPECT_TRUE(Shows("tandem_generation_tokens_total 5"));
    EXPECT_TRUE(Shows(bypassed + "\"off\"} 3"));
    EXPECT_TRUE(Shows(bypassed + "\"no_pages\"} 1"));
  }
}

TEST_F(MetricsObserverTest, RefusalsAreToldApart) {
  const auto refuse = [this](const std::string& code, const std::string& reason) {
    observer_.OnCall({.method = "Generate", .code = code, .reason = reason});
  };
  const std::pair<const char*, const char*> overload[] = {{"QUEUE_FULL", "queue_full"},
                                                          {"CLIENT_LIMIT", "client_limit"},
                                                          {"TOKEN_LIMIT", "queued_tokens"},
                                                          {"OVERLOADED", "no_pages"}};
  for (const auto& [reason, label] : overload) {
    refuse("RESOURCE_EXHAUSTED", reason);
    EXPECT_TRUE(Shows("tandem_requests_rejected_total{reason=\"" + std::string(label) + "\"} 1"));
  }
  refuse("UNAVAILABLE", "DRAINING");
  EXPECT_TRUE(Shows("tandem_requests_rejected_total{reason=\"draining\"} 1"));
  refuse("INVALID_ARGUMENT", "PROMPT_TOO_LONG");
  EXPECT_TRUE(Shows("tandem_requests_rejected_total{reason=\"too_large\"} 1"));
  // What had begun was not refused, and what the client ended neither.
  observer_.OnCall({.method = "Generate", .code = "UNAVAILABLE", .is_rejected = false});
  refuse("CANCELLED", "");
  EXPECT_TRUE(Shows("tandem_requests_rejected_total{reason=\"unavailable\"} 0"));
}

// Series exist from the start for reasons that are listed; "other_half" was not.
TEST(MetricNamesTest, EveryReasonOfABypassIsListed) {
  const std::vector<std::string> listed =
      absl::StrSplit(std::string(metric_internal::kBypassReasons), '|');
  for (const std::string_view reason : bypass::kAll) {
    EXPECT_THAT(listed, testing::Contains(std::string(reason)));
  }
  EXPECT_EQ(listed.size(), std::size(bypass::kAll));
}

}  // namespace
}  // namespace tandem::gateway
