// A second process for the tests of this folder.
#pragma once

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

namespace tandem {

// A child that runs `body` and exits with its result. Forked while the test has one
// thread only. Killed and reaped at the end of the scope.
class TestProcess {
 public:
  template <class Body>
  explicit TestProcess(Body body) : pid_(fork()) {
    if (pid_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that is killed leaves nothing behind
    _exit(body());
  }
  ~TestProcess() {
    if (pid_ > 0) {
      Kill();
      Wait();
    }
  }
  TestProcess(const TestProcess&) = delete;
  TestProcess& operator=(const TestProcess&) = delete;

  void Kill() { kill(pid_, SIGKILL); }
  // Its exit code; 128 + the signal that ended it.
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_;
};

// A folder of its own for each test, with what is in it removed at the end.
class TestFolder {
 public:
  TestFolder() {
    char name[] = "/tmp/tandem_ipc_test_XXXXXX";
    path_ = mkdtemp(name);
  }
  ~TestFolder() {
    for (const char* file : {"s", "s.lock", "t", "t.lock"}) unlink((path_ + "/" + file).c_str());
    rmdir(path_.c_str());
  }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace tandem
