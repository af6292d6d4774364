// Whether anybody takes the connections that clients make.
#pragma once

#include <string>

#include "absl/time/time.h"

namespace tandem::gateway {

// Watches the listeners of this process on the port of "host:port"; other addresses are never
// stuck. gRPC 1.51 never accepts again once accepting has failed (CVE-2023-4785).
class ListenQueue {
 public:
  explicit ListenQueue(const std::string& address);

  // True when connections have waited for longer than a working server lets them. Looking takes
  // a file descriptor: while there is none, it is false, and calls that run are left alone.
  bool IsStuck(absl::Time now);

 private:
  int port_ = -1;
  absl::Time look_at_ = absl::InfinitePast();
  absl::Time waiting_since_ = absl::InfiniteFuture();
};

}  // namespace tandem::gateway
