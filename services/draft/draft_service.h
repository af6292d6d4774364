// The gRPC face of the draft, and the same messages through the ring.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "common/ipc/step_ring.h"
#include "common/worker/step_session.h"
#include "common/worker/worker_process.h"
#include "services/draft/draft_engine.h"
#include "services/draft/draft_info.h"
#include "tandem/draft/v1/draft.grpc.pb.h"

namespace tandem::draft {

// Serves one gateway at a time. Thread-safe.
class DraftService final : public v1::DraftService::Service {
 public:
  // `on_device_failure` is called when a pass failed and the device does not answer after it.
  explicit DraftService(
      std::function<void(const absl::Status&)> on_device_failure = worker::EndForDevice)
      : on_device_failure_(std::move(on_device_failure)) {}

  // From here on steps are taken; before, all calls get UNAVAILABLE. `engine` is borrowed.
  void SetEngine(DraftEngine* engine, const DraftInfo& info);

  grpc::Status GetInfo(grpc::ServerContext* context, const v1::GetInfoRequest* request,
                       v1::GetInfoResponse* response) override;
  // Waits for the step that runs.
  grpc::Status AttachPool(grpc::ServerContext* context, const v1::AttachPoolRequest* request,
                          v1::AttachPoolResponse* response) override;
  grpc::Status Propose(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::ProposeResponse, v1::ProposeRequest>* stream) override;
  // Until the gateway leaves the ring.
  void ServeRing(std::unique_ptr<StepRing> ring);

  // Ends the session after the step that runs; no other begins.
  void Stop() { gate_.Stop(); }

 private:
  using Transport = worker::StepTransport<v1::ProposeRequest, v1::ProposeResponse>;
  absl::Status Serve(const char* name, Transport& transport);
  void Run(const v1::ProposeRequest& request, v1::ProposeResponse* response);
  bool is_loaded();

  const std::function<void(const absl::Status&)> on_device_failure_;
  worker::SessionGate gate_;
  std::mutex engine_mutex_;  // held while the engine works
  DraftEngine* engine_ = nullptr;
  std::string attach_error_;  // why there is no pool, as it was logged; empty: there is one
  std::mutex info_mutex_;
  DraftInfo info_;
  bool is_loaded_ = false;
};

}  // namespace tandem::draft
