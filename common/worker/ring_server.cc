#include "common/worker/ring_server.h"

#include <utility>

#include "common/base/status_macros.h"

namespace tandem::worker {

absl::StatusOr<std::unique_ptr<RingServer>> RingServer::Start(const std::string& path,
                                                              int64_t allowed_uid, Serve serve,
                                                              bool is_on_cpu) {
  std::unique_ptr<RingServer> server(new RingServer());
  ASSIGN_OR_RETURN(server->listener_, StepRingListener::Listen(path, allowed_uid));
  server->serve_ = std::move(serve);
  server->is_on_cpu_ = is_on_cpu;
  server->accept_ = std::thread([raw = server.get()] { raw->AcceptLoop(); });
  return server;
}

RingServer::~RingServer() {
  if (listener_ != nullptr) listener_->Stop();
  if (accept_.joinable()) accept_.join();
  if (session_.joinable()) session_.join();
}

void RingServer::AcceptLoop() {
  while (true) {
    absl::StatusOr<std::unique_ptr<StepRing>> ring = listener_->Accept();
    if (!ring.ok()) return;
    if (is_serving_) continue;  // closes it
    if (!is_on_cpu_) (*ring)->ForecastWaits();
    if (session_.joinable()) session_.join();
    is_serving_ = true;
    session_ = std::thread([this, ring = *std::move(ring)]() mutable {
      serve_(std::move(ring));
      is_serving_ = false;
    });
  }
}

}  // namespace tandem::worker
