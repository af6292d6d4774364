// One child process, its lines of standard output, and its end.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tandem {

// How a process ended.
struct ChildExit {
  int exit_code = 0;  // valid when signal is 0
  int signal = 0;     // the signal that killed it, or 0

  // "exit code 3" or "signal 9 (Killed)".
  std::string ToString() const;
};

// A started program whose standard output is read line by line; its standard error is
// ours. The destructor kills and reaps it. Not thread-safe.
class ChildProcess {
 public:
  // Starts argv[0] with the arguments argv[1..]. NOT_FOUND when there is no such
  // program. The child gets no signal of our terminal and dies with us.
  static absl::StatusOr<ChildProcess> Start(const std::vector<std::string>& argv);

  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  // Readable when there is output, and when it has closed. -1 after the end.
  int output_fd() const { return output_fd_; }
  // Readable when the process has ended.
  int pid_fd() const { return pid_fd_; }

  // Whole lines that are there now; never blocks. Lines over 64 KiB are cut.
  std::vector<std::string> ReadLines();

  // How it ended, once it has; never blocks.
  std::optional<ChildExit> TryWait();

  // Sends a signal; ignored when it has ended.
  void Signal(int signal_number);

 private:
  ChildProcess() = default;

  pid_t pid_ = -1;
  int output_fd_ = -1;
  int pid_fd_ = -1;
  std::string partial_line_;
  std::optional<ChildExit> exit_;
};

}  // namespace tandem
