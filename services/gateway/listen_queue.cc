#include "services/gateway/listen_queue.h"

#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <memory>
#include <utility>

#include "absl/strings/numbers.h"

namespace tandem::gateway {
namespace {

constexpr absl::Duration kLookInterval = absl::Milliseconds(200);
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

bool ListensOn(int fd, int port) {
  int is_listener = 0;
  socklen_t size = sizeof(is_listener);
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listener, &size) != 0 || is_listener == 0) {
    return false;
  }
  sockaddr_storage address = {};
  size = sizeof(address);
  return getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0 &&
         PortOf(address) == port;
}

}  // namespace

ListenQueue::ListenQueue(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port_)) {
    port_ = -1;
  }
}

void ListenQueue::FindListeners() {
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir("/proc/self/fd"), closedir);
  if (folder == nullptr) return;
  while (const dirent* entry = readdir(folder.get())) {
    int fd = -1;
    if (absl::SimpleAtoi(entry->d_name, &fd) && ListensOn(fd, port_)) listeners_.push_back(fd);
  }
}

int32_t ListenQueue::NumWaiting() const {
  int32_t count = 0;
  for (const int fd : listeners_) {
    // Of a listener, tcpi_unacked is the length of its queue (tcp_get_info in Linux).
    tcp_info info = {};
    socklen_t size = sizeof(info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0) {
      count += static_cast<int32_t>(info.tcpi_unacked);
    }
  }
  return count;
}

bool ListenQueue::IsStuck(absl::Time now) {
  if (port_ < 0) return false;
  if (now >= look_at_) {
    look_at_ = now + kLookInterval;
    if (listeners_.empty()) FindListeners();
    const int32_t before = std::exchange(num_waiting_, NumWaiting());
    if (num_waiting_ == 0) {
      waiting_since_ = absl::InfiniteFuture();
    } else if (num_waiting_ < before || waiting_since_ == absl::InfiniteFuture()) {
      waiting_since_ = now;
    }
  }
  return now - waiting_since_ >= kStuckAfter;
}

}  // namespace tandem::gateway
