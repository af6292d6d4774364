// Takes gateways in over the shared-memory ring.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "common/ipc/step_ring.h"

namespace tandem::worker {

// Listens on a thread of its own, and serves one ring at a time on another; a second
// gateway finds its ring closed. To be destroyed after the service was stopped.
class RingServer {
 public:
  using Serve = std::function<void(std::unique_ptr<StepRing>)>;
  // `is_on_cpu`: the model computes on this machine's cores, so nobody looks for long (StepRing).
  // Errors as FdListener::Listen.
  static absl::StatusOr<std::unique_ptr<RingServer>> Start(const std::string& path,
                                                           int64_t allowed_uid, Serve serve,
                                                           bool is_on_cpu = true);
  ~RingServer();

 private:
  RingServer() = default;
  void AcceptLoop();

  std::unique_ptr<StepRingListener> listener_;
  Serve serve_;
  bool is_on_cpu_ = true;
  std::atomic<bool> is_serving_ = false;
  std::thread session_;
  std::thread accept_;
};

}  // namespace tandem::worker
