#include "cli/mps.h"

#include <stdlib.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/device/visible_devices.h"

namespace tandem {
namespace {

// The control program, whose first start makes a daemon. Both calls end within seconds.
constexpr char kStart[] = "timeout 20 nvidia-cuda-mps-control -d >/dev/null 2>&1";
constexpr char kStop[] = "echo quit | timeout 10 nvidia-cuda-mps-control >/dev/null 2>&1";
constexpr int kNoSuchCommand = 127;

int ExitCodeOf(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : -1; }

}  // namespace

absl::StatusOr<std::unique_ptr<MpsServer>> MpsServer::Start(const std::string& folder) {
  std::unique_ptr<MpsServer> server(new MpsServer(folder + "/mps"));
  if (mkdir(server->folder_.c_str(), 0700) != 0) {
    return absl::UnavailableError(absl::StrCat("cannot make ", server->folder_));
  }
  setenv("CUDA_MPS_PIPE_DIRECTORY", server->folder_.c_str(), 1);
  setenv("CUDA_MPS_LOG_DIRECTORY", server->folder_.c_str(), 1);
  const int code = ExitCodeOf(system(kStart));
  if (code == 0) {
    if (const char* visible = getenv(kVisibleDevices)) {
      server->visible_ = visible;
      setenv(kVisibleDevices, VisibleToMpsClients(visible).c_str(), 1);
    }
    return server;
  }
  unsetenv("CUDA_MPS_PIPE_DIRECTORY");
  unsetenv("CUDA_MPS_LOG_DIRECTORY");
  return absl::UnavailableError(code == kNoSuchCommand
                                    ? std::string("nvidia-cuda-mps-control is not installed")
                                    : absl::StrCat("nvidia-cuda-mps-control ended with ", code));
}

MpsServer::~MpsServer() {
  if (ExitCodeOf(system(kStop)) != 0) {
    // Already gone, or it never came up; its folder goes with the socket folder.
  }
  unsetenv("CUDA_MPS_PIPE_DIRECTORY");
  unsetenv("CUDA_MPS_LOG_DIRECTORY");
  if (visible_.has_value()) setenv(kVisibleDevices, visible_->c_str(), 1);
  std::error_code error;
  std::filesystem::remove_all(folder_, error);
}

}  // namespace tandem
