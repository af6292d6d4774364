// The gateway, from a client's side.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/security.h"
#include "tandem/gateway/v1/gateway.pb.h"

namespace tandem {

// One connection to a gateway. Thread-safe.
class GatewayClient {
 public:
  // Connects to "host:port" or "unix:/path". UNAVAILABLE when nobody answers in time; else
  // errors as rpc::MakeChannelCredentials.
  static absl::StatusOr<std::unique_ptr<GatewayClient>> Connect(
      const std::string& endpoint, const rpc::ChannelSecurity& security, absl::Duration timeout);
  ~GatewayClient();

  absl::StatusOr<gateway::v1::GetModelResponse> GetModel(absl::Duration timeout);

  // Whether it takes requests, by gRPC's health protocol: false while it starts or drains, and
  // while the target is away.
  absl::StatusOr<bool> IsServing(absl::Duration timeout);

  // Runs a request, handing each event over as it comes. `on_event` returns false to
  // cancel the call; the result is then CANCELLED.
  absl::Status Generate(const gateway::v1::GenerateRequest& request,
                        const std::function<bool(const gateway::v1::GenerateResponse&)>& on_event);

 private:
  struct Impl;
  explicit GatewayClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem
