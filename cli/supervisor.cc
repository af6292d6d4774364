#include "cli/supervisor.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "nlohmann/json.hpp"

namespace tandem {
namespace {

using Json = nlohmann::json;

std::optional<ProcessEvent> ParseEvent(const std::string& process, const std::string& line) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("event") || !json["event"].is_string()) {
    return std::nullopt;
  }
  const auto text = [&json](const char* key) {
    return json.contains(key) && json[key].is_string() ? json[key].get<std::string>()
                                                       : std::string();
  };
  const auto number = [&json](const char* key) {
    return json.contains(key) && json[key].is_number() ? json[key].get<int64_t>() : int64_t{0};
  };
  ProcessEvent event;
  event.process = process;
  const std::string kind = text("event");
  if (kind == "progress") {
    event.kind = ProcessEvent::Kind::kProgress;
  } else if (kind == "ready") {
    event.kind = ProcessEvent::Kind::kReady;
  } else if (kind == "error") {
    event.kind = ProcessEvent::Kind::kError;
  } else if (kind == "hung") {
    event.kind = ProcessEvent::Kind::kHung;
    event.hung_process = text("process");
  } else {
    return std::nullopt;
  }
  event.done_bytes = number("done");
  event.total_bytes = number("total");
  event.grpc_address = text("grpc");
  event.metrics_address = text("metrics");
  event.message = text("message");
  event.exit_code = static_cast<int>(number("exit_code"));
  return event;
}

}  // namespace

Supervisor::Supervisor(SupervisorOptions options, std::vector<ProcessSpec> specs,
                       std::function<void(const ProcessEvent&)> on_event)
    : options_(std::move(options)),
      on_event_(std::move(on_event)),
      num_oom_kills_(options_.count_oom_kills()) {
  for (ProcessSpec& spec : specs) processes_.push_back({.spec = std::move(spec)});
  stop_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  TANDEM_CHECK(stop_fd_ >= 0);
}

Supervisor::~Supervisor() { close(stop_fd_); }

void Supervisor::RequestStop() {
  const uint64_t one = 1;
  [[maybe_unused]] ssize_t written = write(stop_fd_, &one, sizeof(one));
}

absl::Status Supervisor::StartProcess(Process& process) {
  process.restart_at = absl::InfiniteFuture();
  process.is_ready = false;
  process.last_error.clear();
  process.last_error_code = 0;
  process.was_hung = false;
  std::vector<std::string> argv = process.spec.argv;
  if (process.spec.takes_restart_reason && !process.end_reason.empty()) {
    argv.insert(argv.end(), {"--restart-reason", process.end_reason});
  }
  absl::StatusOr<ChildProcess> child = ChildProcess::Start(argv);
  if (!child.ok()) return child.status();
  process.child = *std::move(child);
  process.started_at = SteadyNow();
  return absl::OkStatus();
}

bool Supervisor::AllReady() const {
  return std::all_of(processes_.begin(), processes_.end(),
                     [](const Process& process) { return process.is_ready; });
}

absl::Status Supervisor::StartAndWaitReady(absl::Duration timeout) {
  for (Process& process : processes_) {
    if (absl::Status status = StartProcess(process); !status.ok()) {
      exit_code_ = kExitFailure;
      StopAll();
      return status;
    }
  }
  const absl::Time deadline = SteadyNow() + timeout;
  while (!AllReady()) {
    if (num_stop_requests_ > 0) {
      StopAll();
      return absl::CancelledError("stopped");
    }
    if (SteadyNow() >= deadline) {
      exit_code_ = kExitFailure;
      StopAll();
      return absl::DeadlineExceededError(
          absl::StrFormat("not ready after %s: see the log above, or allow more with --timeout",
                          absl::FormatDuration(timeout)));
    }
    Wait(deadline);
    for (Process& process : processes_) {
      HandleOutput(process);
      if (!HandleExit(process)) continue;
      exit_code_ = process.last_error_code != 0 ? process.last_error_code : kExitFailure;
      const std::string message = process.last_error;
      StopAll();
      return absl::InternalError(message);
    }
  }
  return absl::OkStatus();
}

int Supervisor::Run() {
  while (num_stop_requests_ == 0 && exit_code_ == kExitOk) {
    Wait(absl::InfiniteFuture());
    for (Process& process : processes_) {
      HandleOutput(process);
      if (!HandleExit(process)) continue;
      on_event_({.kind = ProcessEvent::Kind::kDied,
                 .process = process.spec.name,
                 .message = process.last_error});
      ScheduleRestart(process);
    }
    RestartDue();
  }
  StopAll();
  return exit_code_;
}

void Supervisor::Wait(absl::Time deadline) {
  std::vector<pollfd> fds = {{.fd = stop_fd_, .events = POLLIN, .revents = 0}};
  absl::Time wake_at = deadline;
  for (const Process& process : processes_) {
    wake_at = std::min(wake_at, process.restart_at);
    if (!process.child.has_value()) continue;
    if (process.child->output_fd() >= 0) {
      fds.push_back({.fd = process.child->output_fd(), .events = POLLIN, .revents = 0});
    }
    fds.push_back({.fd = process.child->pid_fd(), .events = POLLIN, .revents = 0});
  }
  int timeout_ms = -1;
  if (wake_at != absl::InfiniteFuture()) {
    const absl::Duration left = std::max(wake_at - SteadyNow(), absl::ZeroDuration());
    timeout_ms = static_cast<int>(absl::ToInt64Milliseconds(left)) + 1;
  }
  poll(fds.data(), fds.size(), timeout_ms);
  uint64_t count = 0;
  if (read(stop_fd_, &count, sizeof(count)) == sizeof(count)) {
    num_stop_requests_ += static_cast<int>(count);
  }
}

void Supervisor::HandleOutput(Process& process) {
  if (!process.child.has_value()) return;
  for (const std::string& line : process.child->ReadLines()) HandleLine(process, line);
}

void Supervisor::HandleLine(Process& process, const std::string& line) {
  const std::optional<ProcessEvent> event = ParseEvent(process.spec.name, line);
  if (!event.has_value()) return;
  if (event->kind == ProcessEvent::Kind::kReady) process.is_ready = true;
  if (event->kind == ProcessEvent::Kind::kError) {
    process.last_error = event->message;
    process.last_error_code = event->exit_code;
  }
  if (event->kind == ProcessEvent::Kind::kHung) Kill(event->hung_process);
  on_event_(*event);
}

void Supervisor::Kill(const std::string& name) {
  for (Process& process : processes_) {
    if (process.spec.name != name || !process.child.has_value()) continue;
    process.last_error = absl::StrCat(name, " did not answer and was killed");
    process.was_hung = true;
    process.child->Signal(SIGKILL);
  }
}

bool Supervisor::HandleExit(Process& process) {
  if (!process.child.has_value()) return false;
  const std::optional<ChildExit> exit = process.child->TryWait();
  if (!exit.has_value()) return false;
  HandleOutput(process);  // its last words
  process.end_reason = ReasonOf(process, *exit);
  if (process.last_error.empty()) {
    process.last_error =
        absl::StrCat(process.spec.name, " ended: ", exit->ToString(),
                     process.end_reason == "oom" ? ", by the kernel: memory ran out" : "");
  }
  if (process.last_error_code == 0 && exit->signal == 0) {
    process.last_error_code = exit->exit_code;
  }
  process.child.reset();
  process.is_ready = false;
  return true;
}

std::string Supervisor::ReasonOf(const Process& process, const ChildExit& exit) {
  if (process.was_hung) return "hang";
  if (exit.signal == 0 && exit.exit_code == kExitDevice) return "xid";
  // Each kill that the kernel counted explains one end by SIGKILL.
  if (exit.signal != SIGKILL || options_.count_oom_kills() <= num_oom_kills_) return "crash";
  ++num_oom_kills_;
  return "oom";
}

void Supervisor::ScheduleRestart(Process& process) {
  const absl::Time now = SteadyNow();
  if (now - process.started_at >= options_.stable_after) process.num_deaths = 0;
  ++process.num_deaths;
  if (process.num_deaths >= options_.max_deaths && process.spec.is_essential) {
    exit_code_ = kExitCrashLoop;
    on_event_({.kind = ProcessEvent::Kind::kError,
               .process = process.spec.name,
               .message =
                   absl::StrFormat("%s died %d times without %s of life in between: %s",
                                   process.spec.name, process.num_deaths,
                                   absl::FormatDuration(options_.stable_after), process.last_error),
               .exit_code = kExitCrashLoop});
    return;
  }
  const int doublings = std::min(process.num_deaths - 1, 16);
  const absl::Duration backoff =
      std::min(options_.backoff_max, options_.backoff_min * (int64_t{1} << doublings));
  process.restart_at = now + backoff;
}

void Supervisor::RestartDue() {
  const absl::Time now = SteadyNow();
  for (Process& process : processes_) {
    if (process.restart_at > now || exit_code_ != kExitOk) continue;
    if (absl::Status status = StartProcess(process); !status.ok()) {
      process.last_error = std::string(status.message());
      ScheduleRestart(process);
    }
  }
}

void Supervisor::StopAll() {
  // The gateway first: it drains what clients still wait for.
  const absl::Time deadline = SteadyNow() + options_.stop_timeout;
  for (auto process = processes_.rbegin(); process != processes_.rend(); ++process) {
    process->restart_at = absl::InfiniteFuture();
    if (!process->child.has_value()) continue;
    process->child->Signal(SIGTERM);
    while (!HandleExit(*process) && SteadyNow() < deadline && num_stop_requests_ < 2) {
      Wait(deadline);
      HandleOutput(*process);
    }
    process->child.reset();
  }
}

}  // namespace tandem
