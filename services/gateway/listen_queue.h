// Whether anybody takes the connections that clients make.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace tandem::gateway {

// Watches the listeners of this process on the port of "host:port"; other addresses are never
// stuck. gRPC 1.51 never accepts again once accepting has failed (CVE-2023-4785).
class ListenQueue {
 public:
  explicit ListenQueue(const std::string& address);

  // True when connections have waited for longer than a working server lets them, and none was
  // taken all the while: a queue that many clients keep filled is looked at often enough to
  // be seen falling. Looking first takes a file descriptor: while there is none, it is false, and
  // calls that run are left alone.
  bool IsStuck(absl::Time now);

 private:
  void FindListeners();
  int32_t NumWaiting() const;

  int port_ = -1;
  std::vector<int> listeners_;  // gRPC's; they stay
  absl::Time look_at_ = absl::InfinitePast();
  absl::Time waiting_since_ = absl::InfiniteFuture();
  int32_t num_waiting_ = 0;
};

}  // namespace tandem::gateway
