// tandem-gateway: the public service, and the rounds of draft and target behind it.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "common/telemetry/log.h"
#include "services/gateway/gateway.h"

int main(int argc, char** argv) {
  using namespace tandem::gateway;  // NOLINT(google-build-using-namespace): main only
  PrepareProcess();
  const absl::StatusOr<GatewayOptions> options = ParseGatewayOptions(argc, argv);
  if (absl::IsOutOfRange(options.status())) {
    std::fputs(std::string(options.status().message()).c_str(), stdout);
    return kExitOk;
  }
  if (!options.ok()) return PrintError(kExitUsage, options.status());
  if (absl::Status status =
          tandem::SetUpLogging({.component = "gateway", .level = options->log_level});
      !status.ok()) {
    return PrintError(kExitUsage, status);
  }
  StopSignal stop;
  Gateway gateway(*options);
  const int code = gateway.Run(stop);
  gateway.Stop();
  // The server of /metrics takes up to 2 s to end, and nothing is left to be done.
  std::_Exit(code);
}
