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
  explicit GrpcStepChannel(Start start) : stream_(std::make_unique<Stream>()) {
    start(&stream_->context, static_cast<Reactor*>(stream_.get()));
    stream_->AddHold();
    stream_->StartRead(&stream_->incoming);
    stream_->StartCall();
  }

  // Waits for gRPC to let go of the stream, which it does soon after a cancel. Were the stream
  // to end by itself, in OnDone, its reference to the connection could be the last one: and a
  // thread of gRPC must not end what it runs for.
  ~GrpcStepChannel() override {
    std::unique_lock lock(stream_->mutex);
    if (!End(lock)) stream_.release();  // NOLINT(bugprone-unused-return-value): gRPC still has it
  }

  absl::Status Send(const Request& request) override {
    {
      std::unique_lock lock(stream_->mutex);
      // An answer can come before we hear that its request was written.
      stream_->changed.wait(lock, [this] { return stream_->is_over || !stream_->is_writing; });
      if (stream_->is_over) return WhyOver(lock);
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
  // Must live until OnDone.
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
      const std::lock_guard lock(mutex);
      is_over = is_done = true;
      end = rpc::FromGrpcStatus(status);
      changed.notify_all();
    }

    grpc::ClientContext context;
    std::mutex mutex;
    std::condition_variable changed;
    Request outgoing;
    Response incoming;
    bool is_writing = false;
    bool has_incoming = false;
    bool is_over = false;
    bool is_done = false;
    bool is_ending = false;
    absl::Status end;
  };

  static constexpr absl::Duration kEndTimeout = absl::Seconds(5);

  // Ends the call; nothing may be started after it. Whether OnDone came.
  bool End(std::unique_lock<std::mutex>& lock) {
    const bool is_first = !std::exchange(stream_->is_ending, true);
    lock.unlock();
    stream_->context.TryCancel();
    if (is_first) stream_->RemoveHold();
    lock.lock();
    return stream_->changed.wait_for(lock, absl::ToChronoMilliseconds(kEndTimeout),
                                     [this] { return stream_->is_done; });
  }

  absl::Status WhyOver(std::unique_lock<std::mutex>& lock) {
    End(lock);
    // A cancelled call is our own doing: the stream had ended before.
    if (stream_->end.ok() || absl::IsCancelled(stream_->end)) {
      return absl::UnavailableError("the worker ended the connection");
    }
    return stream_->end;
  }

  std::unique_ptr<Stream> stream_;
};

}  // namespace tandem::gateway
