#include "common/rpc/worker/worker_server.h"

#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/rpc/set_up.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"

namespace tandem::worker {
namespace {

constexpr int kMaxThreads = 8;  // a stream, and a few calls of GetInfo and health beside it
constexpr auto kDrainTime = std::chrono::milliseconds(500);

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerServer>> WorkerServer::Start(const std::string& listen,
                                                                  grpc::Service* service) {
  rpc::SetUpRpc();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ResourceQuota quota("worker");
  quota.SetMaxThreads(kMaxThreads);
  grpc::ServerBuilder builder;
  builder.SetResourceQuota(quota);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 16 << 10);
  builder.AddListeningPort(listen, grpc::InsecureServerCredentials());
  builder.RegisterService(service);
  auto server = std::make_unique<WorkerServer>();
  server->server_ = builder.BuildAndStart();
  const std::string path = listen.substr(listen.find(':') + 1);
  if (server->server_ == nullptr || chmod(path.c_str(), 0600) != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on '", listen, "' (", std::strerror(errno),
                     "): is the folder there and writable, and the path below 108 bytes?"));
  }
  server->SetServing(false);
  return server;
}

WorkerServer::~WorkerServer() {
  if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now() + kDrainTime);
}

void WorkerServer::SetServing(bool is_serving) {
  server_->GetHealthCheckService()->SetServingStatus(is_serving);
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message())};
}

}  // namespace tandem::worker
