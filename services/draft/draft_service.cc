#include "services/draft/draft_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/rpc/worker/grpc_transport.h"
#include "common/rpc/worker/worker_server.h"
#include "common/telemetry/log.h"
#include "common/worker/ring_transport.h"
#include "services/draft/service_messages.h"

namespace tandem::draft {
namespace {

constexpr absl::Duration kAttachTimeout = absl::Seconds(5);

absl::Status LoadingError() { return absl::UnavailableError("the model is being loaded"); }

}  // namespace

using worker::ToGrpcStatus;

void DraftService::SetEngine(DraftEngine* engine, const DraftInfo& info) {
  const std::scoped_lock lock(engine_mutex_, info_mutex_);
  engine_ = engine;
  info_ = info;
  is_loaded_ = true;
}

bool DraftService::is_loaded() {
  const std::lock_guard lock(info_mutex_);
  return is_loaded_;
}

grpc::Status DraftService::GetInfo(grpc::ServerContext*, const v1::GetInfoRequest*,
                                   v1::GetInfoResponse* response) {
  DraftInfo info;
  {
    const std::lock_guard lock(info_mutex_);
    if (!is_loaded_) return ToGrpcStatus(LoadingError());
    info = info_;
  }
  ToMessage(info, response);
  return grpc::Status::OK;
}

grpc::Status DraftService::AttachPool(grpc::ServerContext*, const v1::AttachPoolRequest* request,
                                      v1::AttachPoolResponse* response) {
  if (!is_loaded()) return ToGrpcStatus(LoadingError());
  const std::lock_guard lock(engine_mutex_);
  const absl::StatusOr<int32_t> positions =
      engine_->AttachPool(request->pool_socket_path(), request->pool_epoch(), kAttachTimeout);
  if (!positions.ok()) {
    // The gateway asks four times a second: what has not changed is not told again.
    const std::string why(positions.status().message());
    if (std::exchange(attach_error_, why) != why) {
      LogWarning(absl::StrCat("no page pool attached: ", why));
    }
    return ToGrpcStatus(positions.status());
  }
  attach_error_.clear();
  if (const std::string note = engine_->pool_note(); !note.empty()) {
    LogWarning(absl::StrCat("the draft has KV pages of its own: ", note));
  }
  if (const std::string note = engine_->draft_note(); !note.empty()) {
    LogWarning(absl::StrCat("drafts are made token by token: ", note));
  }
  LogInfo(absl::StrCat("page pool of epoch ", request->pool_epoch(), " attached, ", *positions,
                       " positions in a page"));
  response->set_positions_per_page(*positions);
  return grpc::Status::OK;
}

grpc::Status DraftService::Propose(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<v1::ProposeResponse, v1::ProposeRequest>* stream) {
  worker::GrpcTransport<v1::ProposeRequest, v1::ProposeResponse> transport(context, stream);
  return ToGrpcStatus(Serve("gRPC", transport));
}

void DraftService::ServeRing(std::unique_ptr<StepRing> ring) {
  worker::RingTransport<v1::ProposeRequest, v1::ProposeResponse> transport(std::move(ring));
  // A gateway that may not enter sees its ring close.
  Serve("the ring", transport).IgnoreError();
}

absl::Status DraftService::Serve(const char* name, Transport& transport) {
  if (!is_loaded()) return LoadingError();
  return worker::ServeSession(
      gate_, name, transport,
      [this](const v1::ProposeRequest& request, v1::ProposeResponse* response) {
        Run(request, response);
      },
      [this] {
        const std::lock_guard lock(engine_mutex_);
        engine_->DropSequences();
      });
}

void DraftService::Run(const v1::ProposeRequest& request, v1::ProposeResponse* response) {
  absl::StatusOr<worker::WorkerStep> step = FromMessage(request);
  if (!step.ok()) {
    return ToMessage({.step_id = request.step_id(), .status = step.status()}, response);
  }
  const std::lock_guard lock(engine_mutex_);
  ToMessage(engine_->Run(*step), response);
  const absl::Status failure = engine_->TakeFailure();
  if (!failure.ok() && worker::HasFailed(info_.memory)) on_device_failure_(failure);
}

}  // namespace tandem::draft
