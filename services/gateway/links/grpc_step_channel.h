// Step messages over a bidirectional gRPC stream.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/time/clock.h"
#include "common/rpc/status_convert.h"
#include "grpcpp/grpcpp.h"
#include "services/gateway/links/step_channel.h"

namespace tandem::gateway {

// A read is always under way, so that the end of an idle worker is seen at once.
template <class Request, class Response>
class GrpcStepChannel final : public StepChannel<Request, Response> {
 public:
  using Reactor = grpc::ClientBidiReactor<Request, Response>;

  // `start(context, reactor)` begins the call on a stub; the channel of the stub outlives
  // this by itself.
  template <class Start>
  explicit GrpcStepChannel(Start start) : stream_(std::make_shared<Stream>()) {
    stream_->self = stream_;
    start(&stream_->context, static_cast<Reactor*>(stream_.get()));
    stream_->AddHold();
    stream_->StartRead(&stream_->incoming);
    stream_->StartCall();
  }

  ~GrpcStepChannel() override {
    stream_->context.TryCancel();
    stream_->Finish();
  }

  absl::Status Send(const Request& request) override {
    {
      std::unique_lock lock(stream_->mutex);
      if (stream_->is_over || stream_->is_writing) return WhyOver(lock);
      stream_->is_writing = true;
      stream_->outgoing = request;
    }
    stream_->StartWrite(&stream_->outgoing);
    return absl::OkStatus();
  }

  absl::Status Receive(absl::Duration timeout, Response* response) override {
    std::unique_lock lock(stream_->mutex);
    const auto until = absl::ToChronoTime(absl::Now() + timeout);
    const bool in_time = stream_->changed.wait_until(
        lock, until, [this] { return stream_->has_incoming || stream_->is_over; });
    if (!in_time) {
      return absl::DeadlineExceededError("no answer within " + absl::FormatDuration(timeout));
    }
    if (!stream_->has_incoming) return WhyOver(lock);
    std::swap(*response, stream_->incoming);
    stream_->has_incoming = false;
    lock.unlock();
    stream_->StartRead(&stream_->incoming);
    return absl::OkStatus();
  }

  bool IsOver() const override {
    const std::lock_guard lock(stream_->mutex);
    return stream_->is_over;
  }

 private:
  // Lives until gRPC has let go of it.
  struct Stream final : Reactor {
    void OnReadDone(bool ok) override {
      const std::lock_guard lock(mutex);
      (ok ? has_incoming : is_over) = true;
      changed.notify_all();
    }
    void OnWriteDone(bool ok) override {
      const std::lock_guard lock(mutex);
      is_writing = false;
      if (!ok) is_over = true;
      changed.notify_all();
    }
    void OnDone(const grpc::Status& status) override {
      std::shared_ptr<Stream> last;
      const std::lock_guard lock(mutex);
      is_over = is_done = true;
      end = rpc::FromGrpcStatus(status);
      changed.notify_all();
      last = std::move(self);
    }
    // Lets gRPC call OnDone; nothing may be started after it.
    void Finish() {
      {
        const std::lock_guard lock(mutex);
        if (std::exchange(is_finished, true)) return;
      }
      this->RemoveHold();
    }

    grpc::ClientContext context;
    std::shared_ptr<Stream> self;
    std::mutex mutex;
    std::condition_variable changed;
    Request outgoing;
    Response incoming;
    bool is_writing = false;
    bool has_incoming = false;
    bool is_over = false;
    bool is_done = false;
    bool is_finished = false;
    absl::Status end;
  };

  static constexpr absl::Duration kEndTimeout = absl::Seconds(1);

  absl::Status WhyOver(std::unique_lock<std::mutex>& lock) {
    lock.unlock();
    stream_->context.TryCancel();
    stream_->Finish();
    lock.lock();
    stream_->changed.wait_for(lock, absl::ToChronoMilliseconds(kEndTimeout),
                              [this] { return stream_->is_done; });
    // A cancelled call is our own doing: the stream had ended before.
    if (stream_->end.ok() || absl::IsCancelled(stream_->end)) {
      return absl::UnavailableError("the worker ended the connection");
    }
    return stream_->end;
  }

  std::shared_ptr<Stream> stream_;
};

}  // namespace tandem::gateway
