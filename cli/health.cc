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
  std::printf("serving %s\n", model->model().c_str());
  return kExitOk;
}

}  // namespace tandem
