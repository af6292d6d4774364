// One connection to a worker, from its first answer until it is lost.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "common/base/status_macros.h"
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

inline std::shared_ptr<grpc::Channel> ConnectWorker(const std::string& address) {
  constexpr int kMaxMessageBytes = 4 << 20;
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // no backoff of an older try
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

// A worker takes one session at a time: only an answered step shows that this is it.
template <class Protocol>
absl::Status TryEmptyStep(WorkerSession<Protocol>* session, absl::Duration timeout) {
  typename Protocol::Request request;
  request.set_step_id(++session->step_id);
  request.set_pool_epoch(session->pool_epoch);
  RETURN_IF_ERROR(session->channel->Send(request));
  typename Protocol::Response response;
  RETURN_IF_ERROR(session->channel->Receive(timeout, &response));
  return Protocol::FromMessage(response).status();
}

}  // namespace tandem::gateway
