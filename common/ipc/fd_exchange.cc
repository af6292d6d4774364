#include "common/ipc/fd_exchange.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/ipc/fd_messages.h"
#include "common/ipc/path_lock.h"

namespace tandem {
namespace {

using internal::FdReply;
using internal::FdRequest;

constexpr int kBacklog = 16;
constexpr absl::Duration kRequestTimeout = absl::Seconds(1);

absl::Status PathError(const char* what, const std::string& path) {
  const int error = errno;
  return absl::UnavailableError(absl::StrCat(what, " '", path, "': ", std::strerror(error)));
}

OwnedFd NewSocket() { return OwnedFd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)); }

// Removes a socket that nobody listens on.
absl::Status RemoveStale(const std::string& path, const sockaddr_un& address) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) {
    return errno == ENOENT ? absl::OkStatus() : PathError("cannot look at", path);
  }
  if (!S_ISSOCK(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "' exists and is no socket: move it or choose another path"));
  }
  const OwnedFd probe = NewSocket();
  if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
      errno != ECONNREFUSED) {
    return absl::FailedPreconditionError(
        absl::StrCat("another process listens on '", path, "': stop it or choose another path"));
  }
  if (unlink(path.c_str()) != 0) return PathError("cannot remove the stale socket", path);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<FdListener>> FdListener::Listen(const FdListenOptions& options) {
  sockaddr_un address;
  RETURN_IF_ERROR(internal::FillAddress(options.path, &address));
  std::unique_ptr<FdListener> listener(new FdListener(options));
  // So that of two processes that start at once only one looks at, removes and binds.
  ASSIGN_OR_RETURN(listener->lock_, LockPath(options.path));
  RETURN_IF_ERROR(RemoveStale(options.path, address));
  listener->socket_ = NewSocket();
  listener->stop_ = OwnedFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const int socket = listener->socket_.get();
  // The socket's own mode becomes the file's (less the umask), without a moment in
  // which others could connect, and without touching the umask of other threads.
  if (socket < 0 || listener->stop_.get() < 0 || fchmod(socket, 0600) != 0 ||
      bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    return PathError("cannot listen on", options.path);
  }
  struct stat info;
  if (chmod(options.path.c_str(), 0600) != 0 || listen(socket, kBacklog) != 0 ||
      lstat(options.path.c_str(), &info) != 0) {
    return PathError("cannot listen on", options.path);
  }
  listener->inode_ = info.st_ino;
  return listener;
}

FdListener::~FdListener() {
  Stop();
  struct stat info;
  if (inode_ != 0 && lstat(options_.path.c_str(), &info) == 0 && info.st_ino == inode_) {
    unlink(options_.path.c_str());
  }
}

void FdListener::Stop() {
  const uint64_t one = 1;
  if (stop_.is_open() && write(stop_.get(), &one, sizeof(one)) < 0) {
    // Only possible when the counter is full: it is readable then.
  }
}

absl::StatusOr<FdClient> FdListener::Accept() {
  while (true) {
    pollfd entries[] = {{.fd = stop_.get(), .events = POLLIN, .revents = 0},
                        {.fd = socket_.get(), .events = POLLIN, .revents = 0}};
    if (poll(entries, 2, -1) < 0 && errno != EINTR) return PathError("poll", options_.path);
    if (entries[0].revents != 0) return absl::CancelledError("stopped");
    if (entries[1].revents == 0) continue;
    OwnedFd connection(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!connection.is_open()) {
      // Out of descriptors or a client that is gone again: leave time for the first.
      poll(entries, 1, 20);
      continue;
    }
    absl::StatusOr<FdClient> client = Shake(std::move(connection));
    if (client.ok()) return client;
  }
}

absl::StatusOr<FdClient> FdListener::Shake(OwnedFd connection) const {
  FdClient client = {.connection = std::move(connection), .wanted_epoch = 0};
  ucred peer = {};
  socklen_t peer_size = sizeof(peer);
  if (getsockopt(client.connection.get(), SOL_SOCKET, SO_PEERCRED, &peer, &peer_size) != 0) {
    return PathError("cannot tell who connects to", options_.path);
  }
  const int64_t allowed = options_.allowed_uid < 0 ? geteuid() : options_.allowed_uid;
  const auto refuse = [&client](absl::Status status) {
    SendFds(client, status, 0, {}).IgnoreError();
    return status;
  };
  // Heard out before it is refused: closing over unread bytes would drop the answer.
  FdRequest request;
  RETURN_IF_ERROR(internal::ReceiveMessage(client.connection.get(), &request, sizeof(request),
                                           SteadyNow() + kRequestTimeout, nullptr));
  if (peer.uid != allowed) {
    return refuse(absl::PermissionDeniedError(
        absl::StrCat("user ", peer.uid, " may not connect here, user ", allowed, " may")));
  }
  if (request.magic != internal::kFdMagic ||
      request.protocol_version != internal::kFdProtocolVersion) {
    return refuse(absl::FailedPreconditionError("the client is no process of this Tandem version"));
  }
  if (request.kind != static_cast<uint32_t>(options_.kind)) {
    return refuse(absl::InvalidArgumentError(absl::StrCat(
        "'", options_.path, "' does not hand out what is asked for (kind ", request.kind, ")")));
  }
  if (request.fingerprint != options_.fingerprint) {
    return refuse(absl::FailedPreconditionError(
        "client and server are different builds (fingerprints differ): start all processes from "
        "one build"));
  }
  client.wanted_epoch = request.wanted_epoch;
  return client;
}

absl::Status SendFds(const FdClient& client, const absl::Status& status, int64_t epoch,
                     const std::vector<int>& fds) {
  TANDEM_CHECK(fds.size() <= static_cast<size_t>(internal::kMaxFds));
  TANDEM_CHECK(status.ok() || fds.empty());
  FdReply reply = {};
  reply.magic = internal::kFdMagic;
  reply.status_code = static_cast<int32_t>(status.code());
  reply.num_fds = static_cast<int32_t>(fds.size());
  reply.epoch = epoch;
  // Cut to what fits; the rest of `reply` is zero already.
  status.message().copy(reply.message, sizeof(reply.message) - 1);
  return internal::SendMessage(client.connection.get(), &reply, sizeof(reply), fds);
}

absl::StatusOr<FdGrant> ConnectFds(const FdConnectOptions& options) {
  const absl::Time deadline = SteadyNow() + options.timeout;
  sockaddr_un address;
  RETURN_IF_ERROR(internal::FillAddress(options.path, &address));
  FdGrant grant;
  grant.connection = NewSocket();
  // Connecting to a unix socket blocks only while the backlog is full.
  const timeval send_timeout = absl::ToTimeval(options.timeout);
  setsockopt(grant.connection.get(), SOL_SOCKET, SO_SNDTIMEO, &send_timeout, sizeof(send_timeout));
  if (connect(grant.connection.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) !=
      0) {
    return PathError("cannot connect to", options.path);
  }
  const FdRequest request = {.magic = internal::kFdMagic,
                             .protocol_version = internal::kFdProtocolVersion,
                             .kind = static_cast<uint32_t>(options.kind),
                             .fingerprint = options.fingerprint,
                             .wanted_epoch = options.wanted_epoch};
  // A server that refuses the user may have answered and closed already: hear it out.
  internal::SendMessage(grant.connection.get(), &request, sizeof(request), {}).IgnoreError();
  FdReply reply;
  RETURN_IF_ERROR(internal::ReceiveMessage(grant.connection.get(), &reply, sizeof(reply), deadline,
                                           &grant.fds));
  reply.message[sizeof(reply.message) - 1] = '\0';
  if (reply.magic != internal::kFdMagic) {
    return absl::DataLossError(absl::StrCat("'", options.path, "' is not a socket of Tandem"));
  }
  if (reply.status_code != 0) {
    const auto code = static_cast<absl::StatusCode>(reply.status_code);
    return absl::Status(code, absl::StrCat("'", options.path, "' refused: ", reply.message));
  }
  if (reply.num_fds < 1 || static_cast<size_t>(reply.num_fds) != grant.fds.size()) {
    return absl::DataLossError(absl::StrCat("'", options.path, "' announced ", reply.num_fds,
                                            " descriptors and sent ", grant.fds.size()));
  }
  grant.epoch = reply.epoch;
  return grant;
}

}  // namespace tandem
