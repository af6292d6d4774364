#include "cli/gateway_client.h"

#include <grpcpp/create_channel.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/address.h"
#include "common/base/status_macros.h"
#include "common/rpc/credentials.h"
#include "common/rpc/status_convert.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tandem/gateway/v1/gateway.grpc.pb.h"

namespace tandem {
struct GatewayClient::Impl {
  std::unique_ptr<grpc::health::v1::Health::Stub> health_stub;
  std::unique_ptr<gateway::v1::GatewayService::Stub> stub;
};

GatewayClient::GatewayClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GatewayClient::~GatewayClient() = default;

absl::StatusOr<std::unique_ptr<GatewayClient>> GatewayClient::Connect(
    const std::string& endpoint, const rpc::ChannelSecurity& security, absl::Duration timeout) {
  // Other names that gRPC has for a server, such as dns:///host:port, are its own affair.
  if (!absl::StrContains(endpoint, "://")) {
    RETURN_IF_ERROR(CheckAddress("--endpoint", endpoint));
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<grpc::ChannelCredentials> credentials,
                   rpc::MakeChannelCredentials(endpoint, security));
  auto channel = grpc::CreateChannel(endpoint, credentials);
  if (!channel->WaitForConnected(rpc::DeadlineAfter(timeout))) {
    // gRPC does not tell why: nobody there, or nobody who speaks the same.
    const bool has_tls = security.use_tls || !security.tls.is_empty();
    return absl::UnavailableError(
        absl::StrCat("no server at ", endpoint, has_tls ? " speaks TLS that --tls-ca trusts" : "",
                     " after ", absl::FormatDuration(timeout),
                     ": start one with `tandem serve`, name another with --endpoint, or ",
                     has_tls ? "check --tls-ca and whether it asks for --tls-cert"
                             : "give --tls-ca if it has TLS"));
  }
  auto impl = std::make_unique<Impl>();
  impl->health_stub = grpc::health::v1::Health::NewStub(channel);
  impl->stub = gateway::v1::GatewayService::NewStub(channel);
  return std::unique_ptr<GatewayClient>(new GatewayClient(std::move(impl)));
}

absl::StatusOr<gateway::v1::GetModelResponse> GatewayClient::GetModel(absl::Duration timeout) {
  grpc::ClientContext context;
  context.set_deadline(rpc::DeadlineAfter(timeout));
  gateway::v1::GetModelResponse response;
  const grpc::Status status = impl_->stub->GetModel(&context, {}, &response);
  if (!status.ok()) return rpc::FromGrpcStatus(status);
  return response;
}

absl::StatusOr<bool> GatewayClient::IsServing(absl::Duration timeout) {
  grpc::ClientContext context;
  context.set_deadline(rpc::DeadlineAfter(timeout));
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(gateway::v1::GatewayService::service_full_name());
  grpc::health::v1::HealthCheckResponse response;
  const grpc::Status status = impl_->health_stub->Check(&context, request, &response);
  if (!status.ok()) return rpc::FromGrpcStatus(status);
  return response.status() == grpc::health::v1::HealthCheckResponse::SERVING;
}

absl::Status GatewayClient::Generate(
    const gateway::v1::GenerateRequest& request,
    const std::function<bool(const gateway::v1::GenerateResponse&)>& on_event) {
  grpc::ClientContext context;
  auto reader = impl_->stub->Generate(&context, request);
  gateway::v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (!on_event(response)) context.TryCancel();
  }
  return rpc::FromGrpcStatus(reader->Finish());
}

}  // namespace tandem
