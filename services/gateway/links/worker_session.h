// One connection to a worker, from its first answer until it is lost.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "grpcpp/grpcpp.h"
#include "services/gateway/links/step_channel.h"
#include "services/gateway/links/worker_description.h"

namespace tandem::gateway {

template <class Protocol>
struct WorkerSession {
  using Channel = StepChannel<typename Protocol::Request, typename Protocol::Response>;

  bool IsUsable() const { return !is_lost && !channel->IsOver(); }

  std::shared_ptr<grpc::Channel> connection;
  std::unique_ptr<Channel> channel;
  WorkerDescription description;
  int64_t pool_epoch = 0;
  int64_t step_id = 0;  // of the last step; the connecting thread's, then the engine's
  bool is_ring = false;
  std::atomic<bool> is_lost = false;
  std::atomic<bool> has_hung = false;
};

}  // namespace tandem::gateway
