// Starts the three processes, restarts the ones that die, and stops them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cli/child_process.h"
#include "cli/exit_codes.h"
#include "common/base/host_memory.h"

namespace tandem {

// One process to keep alive.
struct ProcessSpec {
  std::string name;  // "target", "draft" or "gateway"
  std::vector<std::string> argv;
  // False for the draft: when it keeps dying the others go on without it.
  bool is_essential = true;
  // A worker: when it is started again it gets --restart-reason.
  bool takes_restart_reason = false;
};

// What a process says on its standard output, a JSON object a line:
//   {"event":"progress","done":1048576,"total":98362432}   bytes of weights
//   {"event":"ready", ...}
//   {"event":"error","exit_code":3,"message":"..."}
//   {"event":"hung","process":"target"}   the gateway, of a worker: it is killed
struct ProcessEvent {
  enum class Kind { kProgress, kReady, kError, kHung, kDied };
  Kind kind = Kind::kProgress;
  std::string process;
  int64_t done_bytes = 0;
  int64_t total_bytes = 0;
  std::string grpc_address;     // kReady of the gateway
  std::string metrics_address;  // kReady of the gateway
  std::string hung_process;     // kHung: which does not answer
  std::string message;          // kError, kDied
  int exit_code = 0;            // kError
};

struct SupervisorOptions {
  absl::Duration backoff_min = absl::Milliseconds(200);
  absl::Duration backoff_max = absl::Seconds(10);
  // A process that lives this long starts its backoff anew.
  absl::Duration stable_after = absl::Seconds(30);
  // So many deaths without a stable life in between are a crash loop.
  int max_deaths = 6;
  absl::Duration stop_timeout = absl::Seconds(10);
  // Processes that the kernel has killed for want of memory.
  std::function<int64_t()> count_oom_kills = [] { return CountOomKills(); };
};

// Runs on the caller's thread; not thread-safe but for RequestStop.
class Supervisor {
 public:
  Supervisor(SupervisorOptions options, std::vector<ProcessSpec> specs,
             std::function<void(const ProcessEvent&)> on_event);
  ~Supervisor();  // kills what still runs

  // Starts all and returns when every process has said that it is ready. An error of a
  // process before that is final: its message, and its exit code in `exit_code()`.
  absl::Status StartAndWaitReady(absl::Duration timeout);

  // Watches and restarts until RequestStop, then stops all in the order gateway, draft,
  // target. The result is kExitOk, or kExitCrashLoop when an essential process keeps
  // dying.
  int Run();

  // Makes Run (or StartAndWaitReady) return soon. From any thread or signal handler. A
  // second call kills instead of waiting.
  void RequestStop();

  int exit_code() const { return exit_code_; }

 private:
  struct Process {
    ProcessSpec spec;
    std::optional<ChildProcess> child;
    bool is_ready = false;
    int num_deaths = 0;  // since it was last stable
    absl::Time started_at;
    absl::Time restart_at = absl::InfiniteFuture();
    std::string last_error;
    int last_error_code = 0;
    bool was_hung = false;
    std::string end_reason;  // of the one before, as tandem_worker_restarts_total has it
  };

  absl::Status StartProcess(Process& process);
  // Waits for output, an end, a due restart or a stop request.
  void Wait(absl::Time deadline);
  void HandleOutput(Process& process);
  void HandleLine(Process& process, const std::string& line);
  // One that does not answer gives way to a new one.
  void Kill(const std::string& name);
  // True when the process has ended since the last call.
  bool HandleExit(Process& process);
  std::string ReasonOf(const Process& process, const ChildExit& exit);
  void ScheduleRestart(Process& process);
  void RestartDue();
  void StopAll();
  bool AllReady() const;

  SupervisorOptions options_;
  std::vector<Process> processes_;
  std::function<void(const ProcessEvent&)> on_event_;
  int stop_fd_ = -1;  // eventfd; its count is the number of requests
  int num_stop_requests_ = 0;
  int exit_code_ = kExitOk;
  int64_t num_oom_kills_ = 0;  // that are told of, or were there before us
};

}  // namespace tandem
