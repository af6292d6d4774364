#include "common/ipc/fd_messages.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"

namespace tandem::internal {
namespace {

absl::Status SocketError(const char* what) {
  const int error = errno;
  const std::string message = absl::StrCat(what, ": ", std::strerror(error));
  return absl::UnavailableError(message);
}

// Takes over every descriptor that came with the message, wanted or not.
std::vector<OwnedFd> TakeFds(msghdr* header) {
  std::vector<OwnedFd> fds;
  for (cmsghdr* control = CMSG_FIRSTHDR(header); control != nullptr;
       control = CMSG_NXTHDR(header, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof(int));
      fds.emplace_back(fd);
    }
  }
  return fds;
}

}  // namespace

absl::Status PollUntil(int fd, short events, absl::Time deadline) {
  while (true) {
    const int64_t left_ms =
        std::clamp<int64_t>(absl::ToInt64Milliseconds(deadline - SteadyNow()), 0, 1 << 30);
    pollfd entry = {.fd = fd, .events = events, .revents = 0};
    const int count = poll(&entry, 1, static_cast<int>(left_ms));
    if (count > 0) return absl::OkStatus();
    if (count < 0 && errno != EINTR) return SocketError("poll");
    if (count == 0 && left_ms == 0) return absl::DeadlineExceededError("the peer did not answer");
  }
}

absl::Status SendMessage(int socket, const void* bytes, size_t size, const std::vector<int>& fds) {
  iovec data = {.iov_base = const_cast<void*>(bytes), .iov_len = size};
  msghdr header = {};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxFds)] = {};
  if (!fds.empty()) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(rights), fds.data(), sizeof(int) * fds.size());
  }
  ssize_t sent = 0;
  do {
    sent = sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent != static_cast<ssize_t>(size)) return SocketError("cannot send to the peer");
  return absl::OkStatus();
}

absl::Status ReceiveMessage(int socket, void* bytes, size_t size, absl::Time deadline,
                            std::vector<OwnedFd>* fds) {
  RETURN_IF_ERROR(PollUntil(socket, POLLIN, deadline));
  iovec data = {.iov_base = bytes, .iov_len = size};
  msghdr header = {};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxFds)] = {};
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  ssize_t received = 0;
  do {
    received = recvmsg(socket, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (received < 0 && errno == EINTR);
  if (received < 0) return SocketError("cannot hear the peer");
  std::vector<OwnedFd> taken = TakeFds(&header);
  if (received == 0) return absl::UnavailableError("the peer closed the connection");
  if (received != static_cast<ssize_t>(size) || (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
    return absl::DataLossError(absl::StrCat("the peer sent ", received, " bytes where ", size,
                                            " are expected: it is another program or build"));
  }
  if (fds != nullptr) {
    for (OwnedFd& fd : taken) fds->push_back(std::move(fd));
  }
  return absl::OkStatus();
}

absl::Status FillAddress(const std::string& path, sockaddr_un* address) {
  *address = {};
  address->sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address->sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("socket path '", path, "' has ", path.size(),
                                                   " bytes; 1 to ", sizeof(address->sun_path) - 1,
                                                   " are possible: choose a shorter --socket-dir"));
  }
  std::memcpy(address->sun_path, path.data(), path.size());
  return absl::OkStatus();
}

}  // namespace tandem::internal
