// The gRPC face of the target, and the same messages through the ring.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "common/ipc/step_ring.h"
#include "common/worker/step_session.h"
#include "common/worker/worker_process.h"
#include "services/target/target_engine.h"
#include "services/target/target_info.h"
#include "tandem/target/v1/target.grpc.pb.h"

namespace tandem::target {

// Serves one gateway at a time. Thread-safe.
class TargetService final : public v1::TargetService::Service {
 public:
  // `on_device_failure` is called when a pass failed and the device does not answer after it.
  explicit TargetService(
      std::function<void(const absl::Status&)> on_device_failure = worker::EndForDevice)
      : on_device_failure_(std::move(on_device_failure)) {}

  // From here on steps are taken; before, all calls get UNAVAILABLE. `engine` is borrowed.
  void SetEngine(TargetEngine* engine, const TargetInfo& info);

  grpc::Status GetInfo(grpc::ServerContext* context, const v1::GetInfoRequest* request,
                       v1::GetInfoResponse* response) override;
  grpc::Status Verify(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::VerifyResponse, v1::VerifyRequest>* stream) override;
  // Until the gateway leaves the ring.
  void ServeRing(std::unique_ptr<StepRing> ring);

  // Ends the session after the step that runs; no other begins.
  void Stop() { gate_.Stop(); }

 private:
  using Transport = worker::StepTransport<v1::VerifyRequest, v1::VerifyResponse>;
  absl::Status Serve(const char* name, Transport& transport);
  void Run(const v1::VerifyRequest& request, v1::VerifyResponse* response);

  const std::function<void(const absl::Status&)> on_device_failure_;
  worker::SessionGate gate_;
  std::mutex mutex_;  // of what follows
  TargetEngine* engine_ = nullptr;
  TargetInfo info_;
};

}  // namespace tandem::target
