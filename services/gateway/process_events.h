// What the gateway tells the process that started it, and how it is stopped.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "services/gateway/gateway_options.h"

namespace tandem::gateway {

// Lines of JSON on standard output, read by the supervisor:
//   {"event":"ready","grpc":"127.0.0.1:50051","metrics":"127.0.0.1:9090"}
//   {"event":"error","exit_code":5,"message":"..."}
//   {"event":"hung","process":"target"}   to be killed and started anew
void PrintReady(const std::string& grpc_address, const std::string& metrics_address);
// Returns `code`.
int PrintError(ExitCode code, const absl::Status& status);
void PrintHung(const char* worker);

// To be called first, while the process has one thread: blocks SIGTERM and SIGINT for the
// waiter below, ignores SIGPIPE and SIGHUP.
void PrepareProcess();

// Waits for SIGTERM or SIGINT on a thread of its own. The first makes WaitFor return; the
// second ends the process at once, with exit code 0.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  // True once a signal has come; false at the end of `timeout`.
  bool WaitFor(absl::Duration timeout);

 private:
  struct State;
  std::unique_ptr<State> state_;
  std::thread thread_;
};

}  // namespace tandem::gateway
