// The gateway's end of a session with the target, over either transport, for tests.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/ipc/step_ring.h"
#include "grpcpp/grpcpp.h"
#include "tandem/target/v1/target.grpc.pb.h"

namespace tandem::target {

inline constexpr absl::Duration kLong = absl::Seconds(20);

// Call gives nothing when the session is over.
class Client {
 public:
  virtual ~Client() = default;
  virtual std::optional<v1::VerifyResponse> Call(const v1::VerifyRequest& request) = 0;
};

class GrpcClient final : public Client {
 public:
  explicit GrpcClient(v1::TargetService::Stub* stub) : stream_(stub->Verify(&context_)) {}
  ~GrpcClient() override {
    stream_->WritesDone();
    Finish().IgnoreError();
  }
  std::optional<v1::VerifyResponse> Call(const v1::VerifyRequest& request) override {
    v1::VerifyResponse response;
    if (!stream_->Write(request) || !stream_->Read(&response)) return std::nullopt;
    return response;
  }
  absl::Status Finish() {
    if (is_finished_) return absl::OkStatus();
    is_finished_ = true;
    const grpc::Status status = stream_->Finish();
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::VerifyRequest, v1::VerifyResponse>> stream_;
  bool is_finished_ = false;
};

class RingClient final : public Client {
 public:
  explicit RingClient(const std::string& path) : ring_(ConnectStepRing(path, kLong).value()) {}
  std::optional<v1::VerifyResponse> Call(const v1::VerifyRequest& request) override {
    const std::string bytes = request.SerializeAsString();
    if (!Send(bytes)) return std::nullopt;
    const auto answer = ring_->Receive(kLong);
    v1::VerifyResponse response;
    if (!answer.ok() || !response.ParseFromArray(answer->data(), answer->size())) {
      return std::nullopt;
    }
    return response;
  }
  bool Send(const std::string& bytes) {
    return ring_->Send({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, kLong).ok();
  }
  absl::Status Receive() { return ring_->Receive(kLong).status(); }

 private:
  std::unique_ptr<StepRing> ring_;
};

}  // namespace tandem::target
