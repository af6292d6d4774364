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
  // How long a worker that did not answer a step may take to come back.
  absl::Duration hang_grace = absl::Seconds(10);
  // How often a worker with a device of its own is asked about its memory.
  absl::Duration memory_interval = absl::Seconds(5);
  absl::Duration memory_timeout = absl::Milliseconds(500);
};

}  // namespace tandem::gateway
