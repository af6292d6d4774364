#include "cli/health.h"

#include <cstdio>
#include <memory>

#include "cli/exit_codes.h"
#include "cli/gateway_client.h"

namespace tandem {

int RunHealth(const HealthOptions& options) {
  const absl::Duration timeout = absl::Seconds(options.timeout_s);
  absl::StatusOr<std::unique_ptr<GatewayClient>> client =
      GatewayClient::Connect(options.endpoint, options.security, timeout);
  if (!client.ok()) return Fail(kExitFailure, client.status());
  const absl::StatusOr<gateway::v1::GetModelResponse> model = (*client)->GetModel(timeout);
  // UNAVAILABLE is what it answers while it starts.
  if (options.is_live_enough && (model.ok() || absl::IsUnavailable(model.status()))) {
    std::puts("alive");
    return kExitOk;
  }
  if (!model.ok()) return Fail(kExitFailure, model.status());
  if (!model->target().up()) {
    return Fail(kExitFailure, absl::UnavailableError("the target is away"));
  }
  // A server that drains still answers GetModel: running requests may ask.
  const absl::StatusOr<bool> is_serving = (*client)->IsServing(timeout);
  if (!is_serving.ok()) return Fail(kExitFailure, is_serving.status());
  if (!*is_serving) {
    return Fail(kExitFailure,
                absl::UnavailableError("the server takes no new requests: it drains, or its target "
                                       "has just come back"));
  }
  std::printf("serving %s\n", model->model().c_str());
  return kExitOk;
}

}  // namespace tandem
