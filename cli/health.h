// Whether a server takes requests, for probes that cannot ask it themselves.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "common/rpc/security.h"

namespace tandem {

struct HealthOptions {
  std::string endpoint = "127.0.0.1:50051";
  rpc::ChannelSecurity security;
  bool is_live_enough = false;  // any answer will do
  double timeout_s = 5.0;
};

// Prints one line; kExitOk when the server takes requests (or, with `is_live_enough`, when the
// gateway answers at all), kExitFailure otherwise: while it starts or drains, and while the
// target is away.
int RunHealth(const HealthOptions& options);

}  // namespace tandem
