// How a link finds its worker.
#pragma once

#include <string>

#include "absl/time/time.h"

namespace tandem::gateway {

struct LinkOptions {
  std::string address;  // "unix:/path" or "host:port"
  bool use_ring = true;
  absl::Duration call_timeout = absl::Seconds(3);  // of each call while connecting
  absl::Duration first_backoff = absl::Milliseconds(50);
  absl::Duration last_backoff = absl::Milliseconds(250);
  absl::Duration watch_interval = absl::Milliseconds(50);
};

}  // namespace tandem::gateway
