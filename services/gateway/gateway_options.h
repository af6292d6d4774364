// The command line of tandem-gateway.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/security.h"

namespace tandem::gateway {

// The same numbers as those of `tandem` (cli/exit_codes.h).
enum ExitCode : int {
  kExitOk = 0,
  kExitFailure = 1,
  kExitUsage = 2,
  kExitModelFile = 3,
  kExitMemory = 4,
  kExitPort = 5,
};

struct GatewayOptions {
  std::string listen = "127.0.0.1:50051";  // or "unix:/path"
  rpc::ServerSecurity security;
  std::string metrics_listen = "127.0.0.1:9464";
  std::string target;       // "unix:/path"
  std::string draft;        // empty: none
  int32_t max_context = 0;  // 0: the target's
  int32_t max_running = 16;
  int32_t max_waiting = 256;
  // 0: no limit; nothing: three quarters of all places.
  std::optional<int32_t> max_requests_per_client;
  int64_t max_queued_tokens = 0;  // 0: 16 page pools full
  double prefill_stretch = 1.5;
  std::string pipelining = "auto";  // "auto", "on" or "off"
  bool use_ring = true;
  bool prefix_cache = true;
  absl::Duration drain_timeout = absl::Seconds(30);
  absl::Duration slow_client_timeout = absl::Seconds(30);
  double stream_messages = 420.0;  // a second, of all streams; 0: no limit
  absl::Duration stream_interval = absl::ZeroDuration();
  std::string log_level = "info";
};

// Of one client; 0: no limit. Unless it is given, one that floods leaves others a quarter of the
// places.
int32_t RequestsPerClient(const GatewayOptions& options);

// INVALID_ARGUMENT names the flag; OUT_OF_RANGE carries the text of --help, which is no error.
absl::StatusOr<GatewayOptions> ParseGatewayOptions(int argc, const char* const* argv);

}  // namespace tandem::gateway
