#include "services/gateway/gateway_server.h"

#include <chrono>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/address.h"
#include "common/base/status_macros.h"
#include "common/ipc/path_lock.h"
#include "common/rpc/credentials.h"
#include "common/rpc/set_up.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "services/gateway/request_limits.h"

namespace tandem::gateway {
namespace {

constexpr char kUnixPrefix[] = "unix:";
constexpr char kLivenessService[] = "liveness";
constexpr auto kShutdownTime = std::chrono::milliseconds(500);

// Of messages that are on their way in or out, of all connections together.
constexpr size_t kMaxBufferBytes = 256 << 20;
constexpr int kMaxMetadataBytes = 16 << 10;
constexpr int kKeepaliveTimeMs = 60'000;
constexpr int kKeepaliveTimeoutMs = 20'000;
constexpr int kMinPingIntervalMs = 10'000;

void Limit(const ServerOptions& options, grpc::ServerBuilder* builder) {
  builder->SetResourceQuota(grpc::ResourceQuota("gateway").Resize(kMaxBufferBytes));
  builder->SetMaxReceiveMessageSize(kMaxRequestBytes);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
  builder->AddChannelArgument(
      GRPC_ARG_MAX_CONNECTION_AGE_MS,
      static_cast<int>(absl::ToInt64Milliseconds(options.max_connection_age)));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              kMinPingIntervalMs);
  // Two servers on one port would each get half of the connections.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GatewayServer>> GatewayServer::Start(const ServerOptions& options,
                                                                    GatewayServiceImpl* service) {
  rpc::SetUpRpc();
  // Debian's build of Abseil looks for deadlocks at each lock of gRPC: 6 % of a message's cost.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  // gRPC takes a port modulo 65536, and a name without one as something else.
  RETURN_IF_ERROR(CheckAddress("--listen", options.listen));
  ASSIGN_OR_RETURN(const std::shared_ptr<grpc::ServerCredentials> credentials,
                   rpc::MakeServerCredentials(options.listen, options.security));
  std::unique_ptr<GatewayServer> server(new GatewayServer());
  const bool is_unix = absl::StartsWith(options.listen, kUnixPrefix);
  if (is_unix) {
    ASSIGN_OR_RETURN(server->path_lock_, LockPath(options.listen.substr(sizeof(kUnixPrefix) - 1)));
  }
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  Limit(options, &builder);
  int port = 0;
  builder.AddListeningPort(options.listen, credentials, &port);
  builder.RegisterService(service);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || port == 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", options.listen,
                     ": is it taken? Stop what listens there, or choose another with --listen"));
  }
  server->address_ =
      is_unix ? options.listen
              : absl::StrCat(options.listen.substr(0, options.listen.rfind(':')), ":", port);
  server->server_->GetHealthCheckService()->SetServingStatus(kLivenessService, true);
  server->SetServing(false);
  return server;
}

GatewayServer::~GatewayServer() {
  if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now() + kShutdownTime);
}

void GatewayServer::SetServing(bool is_serving) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  health->SetServingStatus("", is_serving);
  health->SetServingStatus(v1::GatewayService::service_full_name(), is_serving);
}

}  // namespace tandem::gateway
