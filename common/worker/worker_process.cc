#include "common/worker/worker_process.h"

#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/host_memory.h"
#include "common/base/last_words.h"
#include "common/base/random.h"
#include "common/telemetry/log.h"
#include "nlohmann/json.hpp"

namespace tandem::worker {
namespace {

void PrintLine(const nlohmann::json& event) {
  // Bytes that are no UTF-8 (a path) must not throw.
  std::string line = event.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  line.push_back('\n');
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fflush(stdout);
}

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

void OnModelFileFault(int) {
  static constexpr char kLine[] =
      "{\"event\":\"error\",\"exit_code\":3,\"message\":\"the model file was shortened while it "
      "was "
      "read: load a file that nobody writes\"}\n";
  if (write(STDOUT_FILENO, kLine, sizeof(kLine) - 1) < 0) {
    // Nobody reads; the exit code says it too.
  }
  _exit(kExitModelFile);
}

}  // namespace

void PrintProgress(int64_t done_bytes, int64_t total_bytes) {
  PrintLine(
      {{"event", "progress"}, {"phase", "load"}, {"done", done_bytes}, {"total", total_bytes}});
}

void PrintReady(const WorkerOptions& options, int64_t weight_bytes, int64_t pool_bytes) {
  PrintLine({{"event", "ready"},
             {"listen", options.listen},
             {"weights_bytes", weight_bytes},
             {"pool_bytes", pool_bytes}});
}

int PrintError(ExitCode code, const absl::Status& status) {
  const std::string message(status.message());
  PrintLine({{"event", "error"}, {"exit_code", static_cast<int>(code)}, {"message", message}});
  return code;
}

void EndForDevice(const absl::Status& status) {
  LogError(absl::StrCat("the device failed: ", status.message()));
  PrintError(kExitDevice, status);
  _exit(kExitDevice);
}

void PrepareProcess() {
  SetLastWords({.fd = STDOUT_FILENO,
                .before = "{\"event\":\"error\",\"exit_code\":4,\"message\":\"",
                .after = "\"}\n",
                .exit_code = kExitMemory});
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  umask(0077);
  // Each arena keeps what its threads freed: two serve the few threads that allocate.
  mallopt(M_ARENA_MAX, 2);
  // What loading took goes back to the system and does not stay as a hole.
  mallopt(M_MMAP_THRESHOLD, 256 << 10);
  mallopt(M_TRIM_THRESHOLD, 1 << 20);
}

void DieWithParent() {
  const pid_t parent = getppid();  // 1 is a parent like any other in a container
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kExitOk);
}

struct StopWaiter::State {
  std::atomic<bool> is_armed = false;
  std::atomic<bool> is_over = false;
  std::atomic<bool> has_come = false;
};

StopWaiter::StopWaiter() : state_(std::make_unique<State>()) {
  thread_ = std::thread([state = state_.get()] {
    const sigset_t signals = StopSignals();
    while (true) {
      int signal = 0;
      if (sigwait(&signals, &signal) != 0) continue;
      if (state->is_over) return;
      if (!state->is_armed || state->has_come) _exit(kExitOk);
      state->has_come = true;
      state->has_come.notify_all();
    }
  });
}

StopWaiter::~StopWaiter() {
  state_->is_over = true;
  pthread_kill(thread_.native_handle(), SIGTERM);
  thread_.join();
}

void StopWaiter::Wait() { state_->has_come.wait(false); }

void StopWaiter::Arm() { state_->is_armed = true; }

ModelFileGuard::ModelFileGuard() {
  struct sigaction action = {};
  action.sa_handler = OnModelFileFault;
  sigaction(SIGBUS, &action, nullptr);
}

ModelFileGuard::~ModelFileGuard() { signal(SIGBUS, SIG_DFL); }

int64_t ResidentPrivateBytes() {
  int64_t size = 0;
  int64_t resident = 0;
  int64_t shared = 0;
  std::ifstream("/proc/self/statm") >> size >> resident >> shared;
  return (resident - shared) * sysconf(_SC_PAGESIZE);
}

absl::Duration ProcessAge() {
  // proc(5): field 22 of stat, counted after the name, which may hold anything.
  std::ifstream stat("/proc/self/stat");
  std::string text;
  std::getline(stat, text, ')');
  std::string skipped;
  for (int field = 3; field < 22; ++field) stat >> skipped;
  int64_t started_ticks = 0;
  double uptime_s = 0.0;
  if (!(stat >> started_ticks) || !(std::ifstream("/proc/uptime") >> uptime_s)) {
    return absl::ZeroDuration();
  }
  const double started_s = 1.0 * started_ticks / sysconf(_SC_CLK_TCK);
  return std::max(absl::ZeroDuration(), absl::Seconds(uptime_s - started_s));
}

int64_t NewIncarnation() { return static_cast<int64_t>(RandomNumber() >> 2) + 1; }

ExitCode ExitCodeOfLoad(const absl::Status& status) {
  if (absl::IsOutOfRange(status)) return kExitUsage;
  const bool is_device = absl::IsFailedPrecondition(status);  // there is none that fits
  return absl::IsResourceExhausted(status) || is_device ? kExitMemory : kExitModelFile;
}

ExitCode ExitCodeOfStart(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      return kExitMemory;
    case absl::StatusCode::kInvalidArgument:
      return kExitUsage;
    default:
      return kExitSocket;
  }
}

int64_t AvailableMemoryBytes() {
  const HostMemory memory = ReadHostMemory();
  // Without /proc allocation decides.
  return memory.total_bytes > 0 ? memory.available_bytes : std::numeric_limits<int64_t>::max();
}

std::string CpuName() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const size_t colon = line.find(": ");
    if (absl::StartsWith(line, "model name") && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "cpu";
}

int RunWorker(Role role, int argc, const char* const* argv,
              const std::function<int(const WorkerOptions&)>& run) {
  const absl::StatusOr<WorkerOptions> options = ParseWorkerOptions(role, argc, argv);
  if (absl::IsOutOfRange(options.status())) {
    std::fputs(std::string(options.status().message()).c_str(), stdout);
    return kExitOk;
  }
  if (!options.ok()) return PrintError(kExitUsage, options.status());
  if (options->die_with_parent) DieWithParent();
  const absl::Status logging =
      SetUpLogging({.component = RoleName(role), .level = options->log_level});
  if (!logging.ok()) return PrintError(kExitUsage, logging);
  return run(*options);
}

}  // namespace tandem::worker
