// A server of this command's own, for when none is running.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "cli/serve_options.h"
#include "cli/socket_folder.h"
#include "cli/supervisor.h"

namespace tandem {

// Three processes behind a private socket, stopped by the destructor.
class LocalServer {
 public:
  // Starts them with `options` (its addresses are replaced) and waits until ready.
  // On failure `exit_code` says how to exit.
  static absl::StatusOr<std::unique_ptr<LocalServer>> Start(ServeOptions options, int* exit_code);
  ~LocalServer();

  const std::string& endpoint() const { return endpoint_; }

 private:
  LocalServer() = default;

  std::string endpoint_;
  std::optional<SocketFolder> sockets_;
  std::unique_ptr<Supervisor> supervisor_;
  std::thread thread_;  // starts, watches and stops the processes
};

}  // namespace tandem
