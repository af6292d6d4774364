#include "cli/supervisor.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

constexpr absl::Duration kLong = absl::Seconds(30);

// Programs are shell scripts; "ready" is what they say first.
ProcessSpec Script(const std::string& name, const std::string& script, bool is_essential = true) {
  return {.name = name, .argv = {"/bin/sh", "-c", script}, .is_essential = is_essential};
}

const char kReady[] = "echo '{\"event\":\"ready\"}'; ";

class SupervisorTest : public testing::Test {
 protected:
  SupervisorTest() {
    options_.backoff_min = absl::Milliseconds(1);
    options_.backoff_max = absl::Milliseconds(4);
    options_.stop_timeout = absl::Seconds(5);
  }

  Supervisor Make(std::vector<ProcessSpec> specs) {
    return Supervisor(options_, std::move(specs), [this](const ProcessEvent& event) {
      events_.push_back(event);
      if (on_event_) on_event_(event);
    });
  }

  int Count(ProcessEvent::Kind kind) const {
    int count = 0;
    for (const ProcessEvent& event : events_) count += event.kind == kind;
    return count;
  }

  SupervisorOptions options_;
  std::vector<ProcessEvent> events_;
  std::function<void(const ProcessEvent&)> on_event_;
};

TEST_F(SupervisorTest, WaitsForAllToBeReadyAndStopsThem) {
  Supervisor supervisor =
      Make({Script("target", absl::StrCat("echo noise; sleep 0.05; ", kReady, "exec sleep 100")),
            Script("gateway", absl::StrCat(kReady, "exec sleep 100"))});
  ASSERT_TRUE(supervisor.StartAndWaitReady(kLong).ok());
  EXPECT_EQ(Count(ProcessEvent::Kind::kReady), 2);
  supervisor.RequestStop();
  EXPECT_EQ(supervisor.Run(), kExitOk);
}

TEST_F(SupervisorTest, AnErrorBeforeReadyIsFinalWithItsMessageAndCode) {
  Supervisor supervisor =
      Make({Script("target",
                   "echo '{\"event\":\"error\",\"exit_code\":3,\"message\":\"no file\"}'; "
                   "exit 3"),
            Script("gateway", absl::StrCat(kReady, "exec sleep 100"))});
  const absl::Status status = supervisor.StartAndWaitReady(kLong);
  EXPECT_EQ(status.message(), "no file");
  EXPECT_EQ(supervisor.exit_code(), kExitModelFile);
}

TEST_F(SupervisorTest, AProgramThatIsNotThereIsNamed) {
  Supervisor supervisor = Make({{.name = "target", .argv = {"/no/such/program"}}});
  EXPECT_THAT(std::string(supervisor.StartAndWaitReady(kLong).message()),
              testing::HasSubstr("/no/such/program"));
}

TEST_F(SupervisorTest, NotReadyInTimeIsAnError) {
  Supervisor supervisor = Make({Script("target", "exec sleep 100")});
  EXPECT_TRUE(absl::IsDeadlineExceeded(supervisor.StartAndWaitReady(absl::Milliseconds(50))));
}

TEST_F(SupervisorTest, ADeadProcessIsRestarted) {
  // Dies once, by a signal, then stays.
  const std::string mark = absl::StrCat(testing::TempDir(), "/restarted.", getpid());
  std::filesystem::remove(mark);
  Supervisor supervisor = Make(
      {Script("draft", absl::StrCat(kReady, "if [ -e ", mark, " ]; then exec sleep 100; fi; touch ",
                                    mark, "; kill -9 $$"))});
  on_event_ = [&](const ProcessEvent& event) {
    if (event.kind == ProcessEvent::Kind::kReady && std::filesystem::exists(mark)) {
      supervisor.RequestStop();
    }
  };
  ASSERT_TRUE(supervisor.StartAndWaitReady(kLong).ok());
  EXPECT_EQ(supervisor.Run(), kExitOk);
  EXPECT_EQ(Count(ProcessEvent::Kind::kDied), 1);
  std::filesystem::remove(mark);
}

TEST_F(SupervisorTest, AWorkerThatTheGatewaySaysHangsIsKilledAndRestarted) {
  const std::string mark = absl::StrCat(testing::TempDir(), "/hung.", getpid());
  std::filesystem::remove(mark);
  options_.stop_timeout = absl::Milliseconds(10);
  // The target cannot be stopped by TERM; the gateway says that it hangs.
  Supervisor supervisor = Make(
      {Script("target", absl::StrCat("trap '' TERM; ", kReady, "exec sleep 100")),
       Script("gateway", absl::StrCat(kReady, "while [ ! -e ", mark, " ]; do sleep 0.01; done; ",
                                      "echo '{\"event\":\"hung\",\"process\":\"target\"}'; ",
                                      "exec sleep 100"))});
  ASSERT_TRUE(supervisor.StartAndWaitReady(kLong).ok());
  on_event_ = [&](const ProcessEvent& event) {
    if (event.kind == ProcessEvent::Kind::kDied) {
      EXPECT_THAT(event.message, testing::HasSubstr("did not answer"));
    }
    if (event.kind == ProcessEvent::Kind::kReady) supervisor.RequestStop();
  };
  std::ofstream(mark) << "";
  EXPECT_EQ(supervisor.Run(), kExitOk);
  EXPECT_EQ(Count(ProcessEvent::Kind::kDied), 1);
  EXPECT_EQ(Count(ProcessEvent::Kind::kReady), 3);
  std::filesystem::remove(mark);
}

// Ends three times, each time in another way, and writes down with what it was started.
TEST_F(SupervisorTest, AWorkerIsToldWhyTheOneBeforeItEnded) {
  const std::string log = absl::StrCat(testing::TempDir(), "/reasons.", getpid());
  std::filesystem::remove(log);
  std::atomic<int64_t> num_oom_kills = 3;  // of others, before
  options_.count_oom_kills = [&] { return num_oom_kills.load(); };
  ProcessSpec draft = Script(
      "draft", absl::StrCat("echo $* >> ", log, "; ", kReady, "case $(wc -l < ", log,
                            ") in 1) exit 7;; 2) kill -9 $$;; 3) kill -9 $$;; 4) exit 1;; esac; ",
                            "exec sleep 100"));
  draft.argv.push_back("sh");  // $0
  draft.takes_restart_reason = true;
  Supervisor supervisor = Make({std::move(draft)});
  std::vector<std::string> deaths;
  on_event_ = [&](const ProcessEvent& event) {
    if (event.kind == ProcessEvent::Kind::kDied) deaths.push_back(event.message);
    // The kernel kills the second and nobody else.
    if (event.kind == ProcessEvent::Kind::kDied && deaths.size() == 1) num_oom_kills = 4;
    if (event.kind == ProcessEvent::Kind::kReady && deaths.size() == 4) supervisor.RequestStop();
  };
  ASSERT_TRUE(supervisor.StartAndWaitReady(kLong).ok());
  EXPECT_EQ(supervisor.Run(), kExitOk);
  std::ifstream file(log);
  const std::string lines((std::istreambuf_iterator<char>(file)), {});
  EXPECT_EQ(lines,
            "\n--restart-reason xid\n--restart-reason oom\n--restart-reason crash\n"
            "--restart-reason crash\n");
  ASSERT_EQ(deaths.size(), 4);
  EXPECT_THAT(deaths[1], testing::HasSubstr("memory ran out"));
  EXPECT_THAT(deaths[2], testing::Not(testing::HasSubstr("memory")));
  std::filesystem::remove(log);
}

TEST_F(SupervisorTest, AnEssentialProcessThatKeepsDyingIsACrashLoop) {
  Supervisor supervisor = Make({Script("target", absl::StrCat(kReady, "sleep 0.01; exit 1"))});
  ASSERT_TRUE(supervisor.StartAndWaitReady(kLong).ok());
  EXPECT_EQ(supervisor.Run(), kExitCrashLoop);
  EXPECT_EQ(Count(ProcessEvent::Kind::kDied), options_.max_deaths);
}

TEST_F(SupervisorTest, ADraftThatKeepsDyingDoesNotStopTheOthers) {
  Supervisor supervisor =
      Make({Script("target", absl::StrCat(kReady, "exec sleep 100")),
            Script("draft", absl::StrCat(kReady, "sleep 0.01; exit 1"), /*is_essential=*/false)});
  on_event_ = [&](const ProcessEvent&) {
    if (Count(ProcessEvent::Kind::kDied) > options_.max_deaths + 2) supervisor.RequestStop();
  };
  ASSERT_TRUE(supervisor.StartAndWaitReady(kLong).ok());
  EXPECT_EQ(supervisor.Run(), kExitOk);
}

TEST_F(SupervisorTest, OneThatIgnoresTermIsKilledByASecondRequest) {
  Supervisor supervisor =
      Make({Script("target", absl::StrCat("trap '' TERM; ", kReady, "exec sleep 100"))});
  ASSERT_TRUE(supervisor.StartAndWaitReady(kLong).ok());
  supervisor.RequestStop();
  supervisor.RequestStop();
  const absl::Time start = absl::Now();
  EXPECT_EQ(supervisor.Run(), kExitOk);
  EXPECT_LT(absl::Now() - start, options_.stop_timeout);
}

TEST(ChildProcessTest, LinesAndExitArrive) {
  absl::StatusOr<ChildProcess> child =
      ChildProcess::Start({"/bin/sh", "-c", "printf 'one\\ntwo\\nrest'; exit 7"});
  ASSERT_TRUE(child.ok());
  std::vector<std::string> lines;
  std::optional<ChildExit> exit;
  while (!exit.has_value()) {
    exit = child->TryWait();
    for (std::string& line : child->ReadLines()) lines.push_back(std::move(line));
  }
  for (std::string& line : child->ReadLines()) lines.push_back(std::move(line));
  EXPECT_THAT(lines, testing::ElementsAre("one", "two"));
  EXPECT_EQ(exit->ToString(), "exit code 7");
}

}  // namespace
}  // namespace tandem
