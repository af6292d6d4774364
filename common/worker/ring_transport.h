// Step messages over the shared-memory ring.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "common/ipc/step_ring.h"
#include "common/worker/step_session.h"

namespace tandem::worker {

// The same messages as over gRPC, serialized. A message that cannot be parsed ends the
// session: the two ends do not understand each other.
template <class Request, class Response>
class RingTransport final : public StepTransport<Request, Response> {
 public:
  explicit RingTransport(std::unique_ptr<StepRing> ring) : ring_(std::move(ring)) {}

  bool Receive(Request* request) override {
    while (true) {
      const auto message = ring_->Receive(kIdleTimeout);
      if (absl::IsDeadlineExceeded(message.status())) continue;
      if (!message.ok()) return false;
      return request->ParseFromArray(message->data(), static_cast<int>(message->size()));
    }
  }

  bool Send(const Response& response) override {
    if (!response.SerializeToString(&bytes_)) return false;
    return ring_
        ->Send({reinterpret_cast<const uint8_t*>(bytes_.data()), bytes_.size()}, kSendTimeout)
        .ok();
  }

  void End() override { ring_->Close(); }

 private:
  static constexpr absl::Duration kIdleTimeout = absl::Seconds(60);
  // A gateway that takes no answer for so long is stuck.
  static constexpr absl::Duration kSendTimeout = absl::Seconds(10);

  std::unique_ptr<StepRing> ring_;
  std::string bytes_;
};

}  // namespace tandem::worker
