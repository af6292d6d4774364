#include "services/target/target_service.h"

#include <utility>

#include "common/rpc/worker/grpc_transport.h"
#include "common/rpc/worker/worker_server.h"
#include "common/worker/ring_transport.h"
#include "services/target/service_messages.h"

namespace tandem::target {

using worker::ToGrpcStatus;

void TargetService::SetEngine(TargetEngine* engine, const TargetInfo& info) {
  const std::lock_guard lock(mutex_);
  engine_ = engine;
  info_ = info;
}

grpc::Status TargetService::GetInfo(grpc::ServerContext*, const v1::GetInfoRequest*,
                                    v1::GetInfoResponse* response) {
  TargetInfo info;
  {
    const std::lock_guard lock(mutex_);
    if (engine_ == nullptr) return {grpc::StatusCode::UNAVAILABLE, "the model is being loaded"};
    info = info_;
  }
  ToMessage(info, response);
  return grpc::Status::OK;
}

grpc::Status TargetService::Verify(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<v1::VerifyResponse, v1::VerifyRequest>* stream) {
  worker::GrpcTransport<v1::VerifyRequest, v1::VerifyResponse> transport(context, stream);
  return ToGrpcStatus(Serve("gRPC", transport));
}

void TargetService::ServeRing(std::unique_ptr<StepRing> ring) {
  worker::RingTransport<v1::VerifyRequest, v1::VerifyResponse> transport(std::move(ring));
  // A gateway that may not enter sees its ring close.
  Serve("the ring", transport).IgnoreError();
}

absl::Status TargetService::Serve(const char* name, Transport& transport) {
  {
    const std::lock_guard lock(mutex_);
    if (engine_ == nullptr) return absl::UnavailableError("the model is being loaded");
  }
  return worker::ServeSession(
      gate_, name, transport,
      [this](const v1::VerifyRequest& request, v1::VerifyResponse* response) {
        Run(request, response);
      },
      [this] { engine_->DropSequences(); });
}

void TargetService::Run(const v1::VerifyRequest& request, v1::VerifyResponse* response) {
  absl::StatusOr<worker::WorkerStep> step = FromMessage(request);
  if (!step.ok()) {
    return ToMessage({.step_id = request.step_id(), .status = step.status()}, response);
  }
  ToMessage(engine_->Run(*step), response);
  const absl::Status failure = engine_->TakeFailure();
  if (!failure.ok() && worker::HasFailed(info_.memory)) on_device_failure_(failure);
}

}  // namespace tandem::target
