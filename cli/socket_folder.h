// The folder of the workers' sockets.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "cli/exit_codes.h"
#include "common/ipc/owned_fd.h"

namespace tandem {

// One server's for as long as this lives; the folder goes with it if it was made for it.
class SocketFolder {
 public:
  // The folder `path`, made if it is not there; or, with an empty one, a new folder under the
  // system's temporary one, from where folders of servers that were killed are removed.
  // UNAVAILABLE when it cannot be made or written, FAILED_PRECONDITION when another server
  // has it, INVALID_ARGUMENT when its path is too long for sockets.
  static absl::StatusOr<SocketFolder> Make(const std::string& path);
  // How to exit after an error of Make.
  static ExitCode ExitCodeOf(const absl::Status& status);

  SocketFolder(SocketFolder&&) = default;
  SocketFolder& operator=(SocketFolder&&) = delete;
  ~SocketFolder();

  const std::string& path() const { return path_; }

 private:
  SocketFolder() = default;
  std::string path_;
  bool is_temporary_ = false;
  OwnedFd lock_;
};

}  // namespace tandem
