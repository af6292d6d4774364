#include "cli/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tandem {
namespace {

constexpr size_t kMaxLineBytes = 64 * 1024;

void CloseFd(int& fd) {
  if (fd >= 0) close(fd);
  fd = -1;
}

// In the child, after fork: only async-signal-safe calls.
[[noreturn]] void ExecChild(char* const* argv, int output_fd, int error_fd, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // the parent died before the line above
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  dup2(output_fd, STDOUT_FILENO);
  const int null_fd = open("/dev/null", O_RDONLY);
  if (null_fd >= 0) dup2(null_fd, STDIN_FILENO);
  execv(argv[0], argv);
  const int error = errno;
  [[maybe_unused]] ssize_t written = write(error_fd, &error, sizeof(error));
  _exit(127);
}

// The errno of a failed exec; 0 when the pipe was closed by a successful one.
int ReadExecError(int fd) {
  int error = 0;
  ssize_t count;
  do {
    count = read(fd, &error, sizeof(error));
  } while (count < 0 && errno == EINTR);
  return count == sizeof(error) ? error : 0;
}

}  // namespace

std::string ChildExit::ToString() const {
  if (signal != 0) return absl::StrCat("signal ", signal, " (", strsignal(signal), ")");
  return absl::StrCat("exit code ", exit_code);
}

absl::StatusOr<ChildProcess> ChildProcess::Start(const std::vector<std::string>& argv) {
  std::vector<char*> raw_argv;
  for (const std::string& argument : argv) raw_argv.push_back(const_cast<char*>(argument.c_str()));
  raw_argv.push_back(nullptr);

  int output[2];
  int error[2];
  if (pipe2(output, O_CLOEXEC) != 0) {
    return absl::ErrnoToStatus(errno, "cannot make a pipe");
  }
  if (pipe2(error, O_CLOEXEC) != 0) {
    CloseFd(output[0]);
    CloseFd(output[1]);
    return absl::ErrnoToStatus(errno, "cannot make a pipe");
  }
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) ExecChild(raw_argv.data(), output[1], error[1], parent);
  CloseFd(output[1]);
  CloseFd(error[1]);

  ChildProcess child;
  child.output_fd_ = output[0];
  child.pid_ = pid;
  const int exec_error = pid < 0 ? errno : ReadExecError(error[0]);
  CloseFd(error[0]);
  if (exec_error != 0) {
    return absl::ErrnoToStatus(exec_error, absl::StrCat("cannot start ", argv[0]));
  }
  fcntl(child.output_fd_, F_SETFL, O_NONBLOCK);
  child.pid_fd_ = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (child.pid_fd_ < 0) {
    return absl::ErrnoToStatus(errno, "pidfd_open failed: Tandem needs Linux 5.3 or later");
  }
  return child;
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept { *this = std::move(other); }

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(output_fd_, other.output_fd_);
  std::swap(pid_fd_, other.pid_fd_);
  std::swap(partial_line_, other.partial_line_);
  std::swap(exit_, other.exit_);
  return *this;
}

ChildProcess::~ChildProcess() {
  if (pid_ > 0 && !exit_.has_value()) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  CloseFd(output_fd_);
  CloseFd(pid_fd_);
}

std::vector<std::string> ChildProcess::ReadLines() {
  std::vector<std::string> lines;
  char buffer[4096];
  while (output_fd_ >= 0) {
    const ssize_t count = read(output_fd_, buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) break;  // EAGAIN
    if (count == 0) {
      CloseFd(output_fd_);
      break;
    }
    for (const char c : std::string_view(buffer, count)) {
      if (c == '\n') {
        lines.push_back(std::exchange(partial_line_, std::string()));
      } else if (partial_line_.size() < kMaxLineBytes) {
        partial_line_.push_back(c);
      }
    }
  }
  return lines;
}

std::optional<ChildExit> ChildProcess::TryWait() {
  if (exit_.has_value() || pid_ <= 0) return exit_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == pid_) {
    exit_.emplace();
    if (WIFSIGNALED(status)) exit_->signal = WTERMSIG(status);
    if (WIFEXITED(status)) exit_->exit_code = WEXITSTATUS(status);
  }
  return exit_;
}

void ChildProcess::Signal(int signal_number) {
  if (pid_ > 0 && !TryWait().has_value()) kill(pid_, signal_number);
}

}  // namespace tandem
