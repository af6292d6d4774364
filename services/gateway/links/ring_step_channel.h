// Step messages through the shared-memory ring of a worker on this machine.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "common/ipc/step_ring.h"
#include "services/gateway/links/step_channel.h"

namespace tandem::gateway {

template <class Request, class Response>
class RingStepChannel final : public StepChannel<Request, Response> {
 public:
  explicit RingStepChannel(std::unique_ptr<StepRing> ring) : ring_(std::move(ring)) {}

  absl::Status Send(const Request& request) override {
    if (!request.SerializeToString(&bytes_)) {
      return absl::InternalError("a step could not be serialized");
    }
    return Noted(ring_->Send({reinterpret_cast<const uint8_t*>(bytes_.data()), bytes_.size()},
                             kSendTimeout));
  }

  absl::Status Receive(absl::Duration timeout, Response* response) override {
    const auto message = ring_->Receive(timeout);
    if (!message.ok()) return Noted(message.status());
    if (!response->ParseFromArray(message->data(), static_cast<int>(message->size()))) {
      return Noted(absl::DataLossError("the worker's answer cannot be parsed"));
    }
    return absl::OkStatus();
  }

  bool IsOver() const override { return is_over_; }
  void Look() override {
    if (ring_->PeerIsGone()) is_over_ = true;
  }

 private:
  // The ring is empty when a step is sent: a worker that makes no room is stuck.
  static constexpr absl::Duration kSendTimeout = absl::Seconds(10);

  absl::Status Noted(absl::Status status) {
    if (!status.ok()) is_over_ = true;
    return status;
  }

  std::unique_ptr<StepRing> ring_;
  std::string bytes_;
  std::atomic<bool> is_over_ = false;
};

}  // namespace tandem::gateway
