// The gRPC server of the gateway: its address, limits, health and reflection.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/ipc/owned_fd.h"
#include "common/rpc/security.h"
#include "grpcpp/grpcpp.h"
#include "services/gateway/service.h"

namespace tandem::gateway {

struct ServerOptions {
  std::string listen;  // "host:port" or "unix:/path"
  rpc::ServerSecurity security;
  int32_t max_concurrent_streams = 512;
  // Then clients connect anew, and see servers that came later; calls in progress run on.
  absl::Duration max_connection_age = absl::Minutes(30);
};

// Listens until destroyed. grpc.health.v1 answers for "" and the service, NOT_SERVING until
// SetServing, and for "liveness", which is always SERVING.
class GatewayServer {
 public:
  // `service` is borrowed. UNAVAILABLE naming the address when it is taken; errors as
  // rpc::MakeServerCredentials.
  static absl::StatusOr<std::unique_ptr<GatewayServer>> Start(const ServerOptions& options,
                                                              GatewayServiceImpl* service);
  ~GatewayServer();

  void SetServing(bool is_serving);
  // What clients connect to, with the port it got.
  const std::string& address() const { return address_; }

 private:
  GatewayServer() = default;

  std::optional<OwnedFd> path_lock_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace tandem::gateway
