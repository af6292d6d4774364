// What is special about the draft's link: its messages, and attaching it to the pool.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "services/gateway/links/pool_fence.h"
#include "services/gateway/links/worker_description.h"
#include "tandem/draft/v1/draft.grpc.pb.h"

namespace tandem::gateway {

struct DraftProtocol {
  static constexpr Role kRole = Role::kDraft;
  using Stub = draft::v1::DraftService::Stub;
  using Request = draft::v1::ProposeRequest;
  using Response = draft::v1::ProposeResponse;
  using StepResult = ProposeStepResult;

  static std::unique_ptr<Stub> NewStub(const std::shared_ptr<grpc::ChannelInterface>& channel);
  static absl::StatusOr<WorkerDescription> GetInfo(Stub* stub, absl::Duration timeout);
  // Any draft will do: the target decides about the text.
  static absl::Status CheckReplacement(const WorkerDescription&, const WorkerDescription&) {
    return absl::OkStatus();
  }
  // Makes the draft map the present target's pool; UNAVAILABLE while there is none.
  static absl::StatusOr<int64_t> Attach(Stub* stub, PoolFence* fence,
                                        WorkerDescription* description);
  static void OnLost(PoolFence*) {}
  // Not once there is a new pool: it must be attached to that one.
  static bool IsCurrent(const PoolFence& fence, int64_t epoch);
  // The engine's thread: whether the engine works with the same pool.
  static bool IsUsable(const PoolFence& fence, int64_t epoch) {
    return fence.engine_epoch() == epoch;
  }
  static void StartStream(Stub* stub, grpc::ClientContext* context,
                          grpc::ClientBidiReactor<Request, Response>* reactor);

  static void ToMessage(const WorkerStep& step, Request* request);
  static absl::StatusOr<StepResult> FromMessage(const Response& response);
};

}  // namespace tandem::gateway
