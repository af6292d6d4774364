// One Generate call: a sink of the engine, and a stream of gRPC.
#pragma once

#include <memory>
#include <mutex>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/alarm.h"
#include "grpcpp/grpcpp.h"
#include "services/gateway/backend.h"
#include "services/gateway/convert.h"
#include "services/gateway/metrics_observer.h"
#include "services/gateway/stream_buffer.h"
#include "services/gateway/stream_writer.h"

namespace tandem::gateway {

// Lives until both the engine and gRPC have let go of it.
class GenerateCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                           public GenerationSink,
                           public StreamWriter::Stream,
                           public std::enable_shared_from_this<GenerateCall> {
 public:
  // Begins the call and hands it to the engine, or ends it with an error. The reactor to
  // give to gRPC; it takes care of itself. `backend` may be null: not ready yet.
  static GenerateCall* Start(grpc::CallbackServerContext* context, const grpc::ByteBuffer& request,
                             const Backend* backend, const absl::Status& unavailable,
                             MetricsObserver* metrics);

  ~GenerateCall() override;

  // GenerationSink, on the engine's thread:
  void OnStarted(const StartedInfo& info) override;
  void OnDelta(TokenDelta delta) override;
  void OnFinished(const FinishedInfo& info) override;
  void OnError(const absl::Status& status) override;
  bool IsCongested() const override;

  // StreamWriter::Stream: the next event, if none is being written.
  absl::Duration Write(absl::Duration now, MessageBudget& budget) override;

  // Reactions of gRPC:
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  GenerateCall(grpc::CallbackServerContext* context, MetricsObserver* metrics);

  absl::Status Submit(const grpc::ByteBuffer& request, const Backend& backend);
  // Ends the request in the engine, unless it is over.
  void CancelRequest(const char* why);
  // Has the writer write what waits, once it is flushed. Requires the lock.
  void PostToWriter();
  // Whether what comes next goes at once: all but tokens that can wait for more. Requires the
  // lock.
  bool IsUrgent(absl::Duration now) const;
  // Writes the next event, or the end, if none is being written.
  void WriteNext(absl::Duration now);
  void End(absl::Status status);
  void FinishUnread(const absl::Status& end);
  // `has_message`: `bytes_` goes with the status.
  void FinishWith(const absl::Status& end, bool has_message);
  // Tells the metrics how much waits. Requires the lock.
  void ReportBuffered();

  grpc::CallbackServerContext* context_;
  MetricsObserver* metrics_;
  const absl::Duration arrival_;
  const absl::Duration time_limit_;    // from the arrival to the client's deadline
  const absl::Duration last_moments_;  // nothing waits from then on
  const std::string traceparent_;      // valid, or empty
  EngineThread* engine_ = nullptr;
  StreamWriter* writer_ = nullptr;
  absl::Duration stream_interval_ = absl::ZeroDuration();

  mutable std::mutex mutex_;  // of what follows
  StreamBuffer buffer_;
  StreamDescription stream_;
  v1::GenerateResponse message_;
  grpc::ByteBuffer bytes_;  // of it, being written
  bool is_posted_ = false;
  bool is_writing_ = false;
  bool is_finishing_ = false;
  absl::Status cancelled_;  // why, once the call is cancelled
  std::optional<TicketId> ticket_;
  const char* finish_reason_ = "none";
  bool was_started_ = false;

  // Of the life of `context_`, which ends with OnDone. Cancelling may call OnDone itself.
  std::recursive_mutex context_mutex_;
  bool is_done_ = false;
  bool ends_with_message_ = false;  // which no OnWriteDone tells of
  grpc::Alarm cut_off_;
  absl::Duration write_start_;
  absl::Duration next_delta_ = -absl::InfiniteDuration();  // not before; the first: at once
  int64_t reported_bytes_ = 0;

  std::shared_ptr<GenerateCall> self_;  // until OnDone
};

}  // namespace tandem::gateway
