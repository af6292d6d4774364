// The program itself, with a tiny model: how it starts, refuses to, and ends.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "common/ipc/pool_exchange.h"
#include "common/worker/tiny_model.h"
#include "common/worker/worker_process.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/target/target_service_clients.h"

namespace tandem::target {
namespace {

using testing::HasSubstr;

// A started program and its standard output. Killed and reaped at the end.
class Program {
 public:
  explicit Program(std::vector<std::string> argv) {
    int pipe_fds[2];
    EXPECT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(pipe_fds[1], STDOUT_FILENO);
      std::vector<char*> arguments;
      for (std::string& argument : argv) arguments.push_back(argument.data());
      arguments.push_back(nullptr);
      execv(arguments[0], arguments.data());
      _exit(127);
    }
    close(pipe_fds[1]);
    output_fd_ = pipe_fds[0];
  }
  ~Program() {
    if (pid_ > 0) {
      Signal(SIGKILL);
      Wait();
    }
    close(output_fd_);
  }
  Program(const Program&) = delete;

  void Signal(int number) { kill(pid_, number); }
  // Reads on until `text` has come or the output ends.
  bool WaitFor(const std::string& text) {
    char bytes[4096];
    while (output_.find(text) == std::string::npos) {
      const ssize_t count = read(output_fd_, bytes, sizeof(bytes));
      if (count <= 0) return false;
      output_.append(bytes, count);
    }
    return true;
  }
  // Its exit code; 128 + the signal that ended it.
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  int WaitToEnd() {
    WaitFor("no such text");
    return Wait();
  }
  const std::string& output() const { return output_; }

 private:
  pid_t pid_ = -1;
  int output_fd_ = -1;
  std::string output_;
};

class TargetProcessTest : public testing::Test {
 protected:
  TargetProcessTest() {
    char name[] = "/tmp/tandem_process_test_XXXXXX";
    folder_ = mkdtemp(name);
    std::ofstream(model(), std::ios::binary) << worker::TinyModelBytes({});
  }
  ~TargetProcessTest() override {
    for (const char* file :
         {"m.gguf", "t", "t.lock", "t.pool", "t.pool.lock", "t.ring", "t.ring.lock"}) {
      unlink((folder_ + "/" + file).c_str());
    }
    rmdir(folder_.c_str());
  }

  std::string model() const { return folder_ + "/m.gguf"; }
  std::string socket() const { return folder_ + "/t"; }
  std::vector<std::string> Command(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> argv = {TANDEM_TARGET_PROGRAM, "--model",   model(), "--listen",
                                     "unix:" + socket(),    "--threads", "1"};
    argv.insert(argv.end(), more.begin(), more.end());
    return argv;
  }
  std::unique_ptr<v1::TargetService::Stub> Stub() const {
    return v1::TargetService::NewStub(
        grpc::CreateChannel("unix:" + socket(), grpc::InsecureChannelCredentials()));
  }
  v1::GetInfoResponse Info() const {
    grpc::ClientContext context;
    v1::GetInfoResponse info;
    EXPECT_TRUE(Stub()->GetInfo(&context, {}, &info).ok());
    return info;
  }

  std::string folder_;
};

TEST_F(TargetProcessTest, StartsTellsAboutItselfAndStopsOnRequest) {
  Program program(Command());
  ASSERT_TRUE(program.WaitFor("\"event\":\"ready\"")) << program.output();
  EXPECT_THAT(program.output(), HasSubstr("\"event\":\"progress\""));
  const v1::GetInfoResponse info = Info();
  EXPECT_EQ(info.vocabulary_size(), 50);
  EXPECT_EQ(info.quantization(), "F32");
  EXPECT_EQ(info.context_length_tokens(), 512);
  EXPECT_EQ(info.positions_per_page(), 32);
  EXPECT_EQ(info.pool_page_count(), 64);  // four sequences of 512 positions
  EXPECT_EQ(ConnectPool({.path = info.pool_socket_path(), .epoch = info.pool_epoch()})
                ->geometry()
                .page_bytes,
            info.pool_page_bytes());
  EXPECT_EQ(info.swap_page_count(), 0);
  // A session is open when it is told to stop.
  RingClient client(info.ring_name());
  v1::VerifyRequest request;
  request.set_pool_epoch(info.pool_epoch());
  EXPECT_EQ(client.Call(request)->error_code(), 0);
  program.Signal(SIGTERM);
  EXPECT_EQ(program.WaitToEnd(), worker::kExitOk);
  EXPECT_FALSE(client.Call(request).has_value());
  for (const char* end : {"", ".pool", ".ring"}) {
    EXPECT_NE(access((socket() + end).c_str(), F_OK), 0) << end;
  }
}

TEST_F(TargetProcessTest, SwapSpaceHoldsAsManyPagesAsFit) {
  Program program(Command({"--swap-space", "1MiB"}));
  ASSERT_TRUE(program.WaitFor("ready")) << program.output();
  const v1::GetInfoResponse info = Info();
  EXPECT_EQ(info.swap_page_count(), (1 << 20) / info.pool_page_bytes());
  RingClient client(info.ring_name());
  v1::VerifyRequest request;
  request.set_pool_epoch(info.pool_epoch());
  request.add_copies()->set_swap_page(info.swap_page_count() - 1);
  EXPECT_EQ(client.Call(request)->error_code(), 0);
  request.add_copies()->set_swap_page(info.swap_page_count());
  EXPECT_EQ(client.Call(request)->error_code(),
            static_cast<int>(absl::StatusCode::kInvalidArgument));
}

TEST_F(TargetProcessTest, KilledOneIsReplacedOnTheSamePathsWithANewPool) {
  int64_t old_epoch = 0;
  {
    Program program(Command());
    ASSERT_TRUE(program.WaitFor("ready"));
    old_epoch = Info().pool_epoch();
    program.Signal(SIGKILL);
    EXPECT_EQ(program.WaitToEnd(), 128 + SIGKILL);
  }
  Program program(Command());
  ASSERT_TRUE(program.WaitFor("ready")) << program.output();
  const v1::GetInfoResponse info = Info();
  EXPECT_NE(info.pool_epoch(), old_epoch);
  EXPECT_EQ(ConnectPool({.path = info.pool_socket_path(), .epoch = old_epoch}).status().code(),
            absl::StatusCode::kAborted);
}

TEST_F(TargetProcessTest, SecondOneOnThePathIsRefusedAndTheFirstServesOn) {
  Program first(Command());
  ASSERT_TRUE(first.WaitFor("ready"));
  Program second(Command());
  EXPECT_EQ(second.WaitToEnd(), worker::kExitSocket);
  EXPECT_THAT(second.output(), HasSubstr("\"exit_code\":5"));
  EXPECT_EQ(Info().vocabulary_size(), 50);
}

TEST_F(TargetProcessTest, RefusalsHaveTheirExitCodes) {
  const auto ends_with = [](const std::vector<std::string>& argv) {
    Program program(argv);
    const int code = program.WaitToEnd();
    EXPECT_THAT(program.output(), HasSubstr("\"event\":\"error\""));
    return code;
  };
  EXPECT_EQ(ends_with(Command({"--no-such-flag"})), worker::kExitUsage);
  EXPECT_EQ(ends_with(Command({"--ctx", "513"})), worker::kExitUsage);
  EXPECT_EQ(ends_with(Command({"--kv-bytes", "10"})), worker::kExitUsage);
  EXPECT_EQ(ends_with(Command({"--kv-pages", "16000000"})), worker::kExitMemory);
  EXPECT_EQ(
      ends_with({TANDEM_TARGET_PROGRAM, "--model", model(), "--listen", "unix:/no/such/folder/t"}),
      worker::kExitSocket);
  EXPECT_EQ(
      ends_with({TANDEM_TARGET_PROGRAM, "--model", model() + "x", "--listen", "unix:" + socket()}),
      worker::kExitModelFile);
  ASSERT_EQ(truncate(model().c_str(), 3000), 0);
  EXPECT_EQ(ends_with(Command()), worker::kExitModelFile);
}

// A file that is shortened while it is mapped ends the worker with a reason.
TEST(ModelFileGuardTest, ShortenedFileIsAnErrorAndNoCrash) {
  EXPECT_EXIT(
      {
        const worker::ModelFileGuard guard;
        char name[] = "/tmp/tandem_guard_test_XXXXXX";
        const int fd = mkstemp(name);
        unlink(name);
        if (ftruncate(fd, 8192) != 0) _exit(99);
        const auto* bytes =
            static_cast<volatile char*>(mmap(nullptr, 8192, PROT_READ, MAP_SHARED, fd, 0));
        if (ftruncate(fd, 0) != 0) _exit(99);
        _exit(bytes[4096] == 0 ? 98 : 97);
      },
      testing::ExitedWithCode(worker::kExitModelFile), "");
}

}  // namespace
}  // namespace tandem::target
