#include "services/gateway/process_events.h"

#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <mutex>

#include "common/base/last_words.h"
#include "nlohmann/json.hpp"

namespace tandem::gateway {
namespace {

void PrintLine(const nlohmann::ordered_json& event) {
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

}  // namespace

void PrintReady(const std::string& grpc_address, const std::string& metrics_address) {
  PrintLine({{"event", "ready"}, {"grpc", grpc_address}, {"metrics", metrics_address}});
}

int PrintError(ExitCode code, const absl::Status& status) {
  PrintLine({{"event", "error"},
             {"exit_code", static_cast<int>(code)},
             {"message", std::string(status.message())}});
  return code;
}

void PrintHung(const char* worker) { PrintLine({{"event", "hung"}, {"process", worker}}); }

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
  rlimit files = {};  // each connection takes one
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  mallopt(M_ARENA_MAX, 2);  // each arena keeps what its threads freed
}

struct StopSignal::State {
  std::mutex mutex;
  std::condition_variable changed;
  bool has_come = false;
  bool is_over = false;
};

StopSignal::StopSignal() : state_(std::make_unique<State>()) {
  thread_ = std::thread([state = state_.get()] {
    const sigset_t signals = StopSignals();
    while (true) {
      int signal = 0;
      if (sigwait(&signals, &signal) != 0) continue;
      const std::lock_guard lock(state->mutex);
      if (state->is_over) return;
      if (state->has_come) _exit(kExitOk);
      state->has_come = true;
      state->changed.notify_all();
    }
  });
}

StopSignal::~StopSignal() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->is_over = true;
  }
  pthread_kill(thread_.native_handle(), SIGTERM);
  thread_.join();
}

bool StopSignal::WaitFor(absl::Duration timeout) {
  std::unique_lock lock(state_->mutex);
  return state_->changed.wait_for(lock, absl::ToChronoMilliseconds(timeout),
                                  [this] { return state_->has_come; });
}

}  // namespace tandem::gateway
