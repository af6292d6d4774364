// Hands file descriptors to other processes over a unix socket.
//
// One message each way on a SOCK_SEQPACKET connection: the client says what it wants
// and which build it is, the server answers with a status and, when fine, descriptors
// (SCM_RIGHTS). The connection then stays open as long as both live: its end tells
// each of the death of the other.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/ipc/owned_fd.h"

namespace tandem {

// What a socket hands out; a client that asks for another kind is at the wrong path.
enum class FdKind : uint32_t { kPool = 1, kStepRing = 2 };

struct FdListenOptions {
  std::string path;
  FdKind kind = FdKind::kPool;
  uint64_t fingerprint = 0;  // a client with another one is refused
  // The user that may connect; -1: the one this process runs as.
  int64_t allowed_uid = -1;
};

// A client that passed the checks and waits for its descriptors.
struct FdClient {
  OwnedFd connection;
  int64_t wanted_epoch = 0;  // 0 takes any
};

// A listening socket, mode 0600. Thread-safe after Listen as far as Stop goes; Accept
// is called by one thread.
class FdListener {
 public:
  // Removes a socket that a dead process left. FAILED_PRECONDITION when another process
  // listens there, INVALID_ARGUMENT for a path that is too long or is no socket.
  static absl::StatusOr<std::unique_ptr<FdListener>> Listen(const FdListenOptions& options);
  // Stops, and removes the socket file if it is still ours.
  ~FdListener();

  // The next client that is allowed and asks for the right thing; others are told why
  // not. A client gets a second to say what it wants. CANCELLED after Stop.
  absl::StatusOr<FdClient> Accept();

  // Makes Accept return, now and from then on. From any thread or signal handler.
  void Stop();

  const std::string& path() const { return options_.path; }

 private:
  explicit FdListener(FdListenOptions options) : options_(std::move(options)) {}
  absl::StatusOr<FdClient> Shake(OwnedFd connection) const;

  FdListenOptions options_;
  OwnedFd socket_;
  OwnedFd stop_;  // eventfd, readable once stopped
  OwnedFd lock_;  // held while we serve the path
  ino_t inode_ = 0;
};

// Answers a client: `fds` (borrowed, 1 to 4) when `status` is OK.
absl::Status SendFds(const FdClient& client, const absl::Status& status, int64_t epoch,
                     const std::vector<int>& fds);

struct FdConnectOptions {
  std::string path;
  FdKind kind = FdKind::kPool;
  uint64_t fingerprint = 0;
  int64_t wanted_epoch = 0;
  absl::Duration timeout = absl::Seconds(5);
};

struct FdGrant {
  OwnedFd connection;
  int64_t epoch = 0;
  std::vector<OwnedFd> fds;
};

// Asks for descriptors. UNAVAILABLE when nobody listens, DEADLINE_EXCEEDED when there is
// no answer, the server's own status when it refuses, DATA_LOSS for an answer that is
// none.
absl::StatusOr<FdGrant> ConnectFds(const FdConnectOptions& options);

}  // namespace tandem
