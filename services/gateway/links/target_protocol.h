// What is special about the target's link: its messages, and the pool it brings.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "services/gateway/links/pool_fence.h"
#include "services/gateway/links/worker_description.h"
#include "tandem/target/v1/target.grpc.pb.h"

namespace tandem::gateway {

struct TargetProtocol {
  static constexpr Role kRole = Role::kTarget;
  using Stub = target::v1::TargetService::Stub;
  using Request = target::v1::VerifyRequest;
  using Response = target::v1::VerifyResponse;
  using StepResult = VerifyStepResult;

  static std::unique_ptr<Stub> NewStub(const std::shared_ptr<grpc::ChannelInterface>& channel);
  static absl::StatusOr<WorkerDescription> GetInfo(Stub* stub, absl::Duration timeout);
  // FAILED_PRECONDITION when `found` would go on with other text than what was `served`.
  static absl::Status CheckReplacement(const WorkerDescription& served,
                                       const WorkerDescription& found);
  // Maps the pool and publishes it; the epoch that steps carry.
  static absl::StatusOr<int64_t> Attach(Stub* stub, PoolFence* fence,
                                        WorkerDescription* description);
  static void OnLost(PoolFence* fence) { fence->Withdraw(); }
  // Whether a session of this epoch is still of use.
  static bool IsCurrent(const PoolFence&, int64_t) { return true; }
  static bool IsUsable(const PoolFence&, int64_t) { return true; }
  static void StartStream(Stub* stub, grpc::ClientContext* context,
                          grpc::ClientBidiReactor<Request, Response>* reactor);

  static void ToMessage(const WorkerStep& step, Request* request);
  // The error of the whole step, if it has one.
  static absl::StatusOr<StepResult> FromMessage(const Response& response);
};

}  // namespace tandem::gateway
