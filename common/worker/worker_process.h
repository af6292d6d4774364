// What a worker tells the process that started it, and how it is stopped.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/worker/worker_options.h"

namespace tandem::worker {

// Lines of JSON on standard output, read by the supervisor:
//   {"event":"progress","phase":"load","done":1048576,"total":98362432}   bytes
//   {"event":"ready","listen":"unix:/...","weights_bytes":...}
//   {"event":"error","exit_code":3,"message":"..."}
// A reader that is gone does not end the worker.
void PrintProgress(int64_t done_bytes, int64_t total_bytes);
void PrintReady(const WorkerOptions& options, int64_t weight_bytes, int64_t pool_bytes);
// Returns `code`.
int PrintError(ExitCode code, const absl::Status& status);
// Says so, and ends this process at once: after some errors (an Xid of the driver) nothing runs
// on a device any more but in a new process.
[[noreturn]] void EndForDevice(const absl::Status& status);

// To be called first, while the process has one thread: blocks SIGTERM and SIGINT for
// the waiter below, ignores SIGPIPE and SIGHUP, keeps new files and sockets to the user,
// and keeps the allocator from holding memory for threads that do nothing.
void PrepareProcess();

// Ends this process when the one that started it does. To be called before threads start.
void DieWithParent();

// Waits for SIGTERM or SIGINT on a thread of its own.
class StopWaiter {
 public:
  // Until `Arm`, a signal ends the process at once with exit code 0: nothing is served yet.
  StopWaiter();
  ~StopWaiter();
  // Blocks until a signal has come.
  void Wait();
  // From here on a signal only makes Wait return; a second one ends the process.
  void Arm();

 private:
  struct State;
  std::unique_ptr<State> state_;
  std::thread thread_;
};

// While it lives, SIGBUS (the model file was shortened while mapped) prints an error
// event and ends the process with kExitModelFile. One at a time.
class ModelFileGuard {
 public:
  ModelFileGuard();
  ~ModelFileGuard();
  ModelFileGuard(const ModelFileGuard&) = delete;
  ModelFileGuard& operator=(const ModelFileGuard&) = delete;
};

// Bytes of memory resident in this process that are no shared memory.
int64_t ResidentPrivateBytes();

// Since the process began; to 10 ms.
absl::Duration ProcessAge();

// A number that differs from start to start; at least 1.
int64_t NewIncarnation();

// Memory that can be had without swapping and within the limits of the cgroup.
int64_t AvailableMemoryBytes();
// "AMD EPYC ..." and so on; "cpu" when the system does not say.
std::string CpuName();

// The exit codes of what failed: loading a model, and what comes after it.
ExitCode ExitCodeOfLoad(const absl::Status& status);
ExitCode ExitCodeOfStart(const absl::Status& status);

// Reads the command line and calls `run` with it; the exit code.
int RunWorker(Role role, int argc, const char* const* argv,
              const std::function<int(const WorkerOptions&)>& run);

}  // namespace tandem::worker
