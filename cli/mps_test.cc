#include "cli/mps.h"

#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "gtest/gtest.h"

namespace tandem {
namespace {

// With a control program of NVIDIA's name that ends with `exit_code`.
class MpsServerTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = getenv("PATH");
    folder_ = testing::TempDir() + "/mps_test";
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    unsetenv("CUDA_VISIBLE_DEVICES");
  }
  void TearDown() override {
    setenv("PATH", path_.c_str(), 1);
    unsetenv("CUDA_VISIBLE_DEVICES");
  }
  void InstallControlProgram(int exit_code) {
    const std::string program = folder_ + "/nvidia-cuda-mps-control";
    std::ofstream(program) << "#!/bin/sh\nexit " << exit_code << "\n";
    chmod(program.c_str(), 0700);
    setenv("PATH", (folder_ + ":" + path_).c_str(), 1);
  }
  static std::string Variable(const char* name) {
    const char* value = getenv(name);
    return value == nullptr ? "(unset)" : value;
  }

  std::string path_;
  std::string folder_;
};

TEST_F(MpsServerTest, ProcessesStartedWhileItLivesFindIt) {
  InstallControlProgram(0);
  {
    const absl::StatusOr<std::unique_ptr<MpsServer>> server = MpsServer::Start(folder_);
    ASSERT_TRUE(server.ok()) << server.status();
    EXPECT_EQ(Variable("CUDA_MPS_PIPE_DIRECTORY"), folder_ + "/mps");
    EXPECT_EQ(Variable("CUDA_VISIBLE_DEVICES"), "(unset)");
  }
  EXPECT_EQ(Variable("CUDA_MPS_PIPE_DIRECTORY"), "(unset)");
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/mps"));
}

// The daemon has numbered the second GPU 0: a worker that asks for 1 would find none.
TEST_F(MpsServerTest, ProcessesCountTheGpusThatTheDaemonSees) {
  InstallControlProgram(0);
  setenv("CUDA_VISIBLE_DEVICES", "1", 1);
  {
    const absl::StatusOr<std::unique_ptr<MpsServer>> server = MpsServer::Start(folder_);
    ASSERT_TRUE(server.ok()) << server.status();
    EXPECT_EQ(Variable("CUDA_VISIBLE_DEVICES"), "0");
  }
  EXPECT_EQ(Variable("CUDA_VISIBLE_DEVICES"), "1");
}

TEST_F(MpsServerTest, NothingChangesWhenItDoesNotStart) {
  InstallControlProgram(1);
  setenv("CUDA_VISIBLE_DEVICES", "1", 1);
  EXPECT_EQ(MpsServer::Start(folder_).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Variable("CUDA_MPS_PIPE_DIRECTORY"), "(unset)");
  EXPECT_EQ(Variable("CUDA_VISIBLE_DEVICES"), "1");
}

}  // namespace
}  // namespace tandem
