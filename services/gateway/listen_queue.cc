#include "services/gateway/listen_queue.h"

#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>

#include "absl/strings/numbers.h"

namespace tandem::gateway {
namespace {

constexpr absl::Duration kLookInterval = absl::Seconds(1);
constexpr absl::Duration kStuckAfter = absl::Seconds(5);

int PortOf(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  }
  if (address.ss_family == AF_INET6) {
    return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  }
  return -1;
}

// Of a listener, tcpi_unacked is the length of its queue (tcp_get_info in Linux).
int32_t QueueLength(int fd, int port) {
  int is_listener = 0;
  socklen_t size = sizeof(is_listener);
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listener, &size) != 0 || is_listener == 0) {
    return 0;
  }
  sockaddr_storage address = {};
  size = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      PortOf(address) != port) {
    return 0;
  }
  tcp_info info = {};
  size = sizeof(info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return 0;
  return static_cast<int32_t>(info.tcpi_unacked);
}

// Of all listeners of this process on `port`.
int32_t NumWaiting(int port) {
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir("/proc/self/fd"), closedir);
  if (folder == nullptr) return 0;
  int32_t count = 0;
  while (const dirent* entry = readdir(folder.get())) {
    int fd = -1;
    if (absl::SimpleAtoi(entry->d_name, &fd)) count += QueueLength(fd, port);
  }
  return count;
}

}  // namespace

ListenQueue::ListenQueue(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port_)) {
    port_ = -1;
  }
}

bool ListenQueue::IsStuck(absl::Time now) {
  if (port_ < 0) return false;
  if (now >= look_at_) {
    look_at_ = now + kLookInterval;
    waiting_since_ = NumWaiting(port_) > 0 ? std::min(waiting_since_, now) : absl::InfiniteFuture();
  }
  return now - waiting_since_ >= kStuckAfter;
}

}  // namespace tandem::gateway
