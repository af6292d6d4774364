#include "services/gateway/generate_service_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/base/clock.h"
#include "common/base/random.h"
#include "common/base/status_macros.h"
#include "common/rpc/status_convert.h"
#include "common/telemetry/trace_context.h"
#include "services/gateway/service_client.h"
#include "services/gateway/service_errors.h"
#include "services/gateway/service_wire.h"
#include "services/gateway/validation.h"

namespace tandem::gateway {
namespace {

// How long a client that has stopped reading may still fetch the status of its call.
constexpr absl::Duration kFetchTimeout = absl::Seconds(30);

// So long before a call's deadline nothing waits for more tokens: it would be lost.
constexpr absl::Duration kLastMoments = absl::Seconds(1);

absl::Duration TimeLeft(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteDuration();
  return absl::FromChrono(deadline) - absl::Now();
}

// The call's W3C header; empty when it has none, or none that is valid.
std::string TraceparentOf(const grpc::CallbackServerContext& context) {
  const auto found = context.client_metadata().find("traceparent");
  if (found == context.client_metadata().end()) return "";
  const std::string_view value(found->second.data(), found->second.size());
  return ParseTraceparent(value).has_value() ? std::string(value) : "";
}

}  // namespace

GenerateCall* GenerateCall::Start(grpc::CallbackServerContext* context,
                                  const grpc::ByteBuffer& request, const Backend* backend,
                                  const absl::Status& unavailable, MetricsObserver* metrics) {
  const std::shared_ptr<GenerateCall> call(new GenerateCall(context, metrics));
  call->self_ = call;
  absl::Status status = backend == nullptr ? unavailable : call->Submit(request, *backend);
  if (!status.ok()) call->End(std::move(status));
  return call.get();
}

GenerateCall::GenerateCall(grpc::CallbackServerContext* context, MetricsObserver* metrics)
    : context_(context),
      metrics_(metrics),
      arrival_(Clock::Steady().Now()),
      time_limit_(TimeLeft(*context)),
      last_moments_(arrival_ + time_limit_ - kLastMoments),
      traceparent_(TraceparentOf(*context)) {}

// What was never taken waits no more.
GenerateCall::~GenerateCall() { metrics_->OnBuffered(-reported_bytes_); }

absl::Status GenerateCall::Submit(const grpc::ByteBuffer& bytes, const Backend& backend) {
  const ServedModel& model = *backend.model;
  engine_ = backend.engine;
  writer_ = backend.writer;
  stream_interval_ = backend.stream_interval;
  const std::string client = ClientKeyOf(*context_);
  RETURN_IF_ERROR(engine_->CheckRoom(client));
  v1::GenerateRequest message;
  RETURN_IF_ERROR(ParseMessage(bytes, &message));
  RETURN_IF_ERROR(CheckModelName(message.model(), model.name()));
  RETURN_IF_ERROR(Validate(message, model.vocab_size()));
  ASSIGN_OR_RETURN(GenerationRequest request,
                   ToGenerationRequest(message, model,
                                       {.request_id = message.request_id().empty()
                                                          ? absl::StrFormat("%016x", RandomNumber())
                                                          : message.request_id(),
                                        .traceparent = traceparent_,
                                        .client = client,
                                        .seed = RandomNumber(),
                                        .arrival = arrival_,
                                        .deadline = arrival_ + time_limit_}));
  RETURN_IF_ERROR(CheckPromptLength(message, static_cast<int64_t>(request.prompt.size()),
                                    backend.context_length));
  stream_ = DescribeStream(message, request, model.name());
  absl::StatusOr<TicketId> ticket = engine_->Submit(std::move(request), shared_from_this());
  if (!ticket.ok()) return ticket.status();
  const std::lock_guard lock(mutex_);
  ticket_ = *ticket;
  // The call may have been cancelled while the prompt was tokenized.
  if (!cancelled_.ok()) engine_->Cancel(*ticket_, cancelled_);
  return absl::OkStatus();
}

void GenerateCall::OnStarted(const StartedInfo& info) {
  const std::lock_guard lock(mutex_);
  buffer_.PutStarted(info);
  was_started_ = true;
  PostToWriter();
}

void GenerateCall::OnDelta(TokenDelta delta) {
  const std::lock_guard lock(mutex_);
  buffer_.PutDelta(std::move(delta));
  ReportBuffered();
  PostToWriter();
}

void GenerateCall::OnFinished(const FinishedInfo& info) {
  const std::lock_guard lock(mutex_);
  buffer_.PutFinished(info);
  buffer_.PutEnd(absl::OkStatus());
  finish_reason_ = FinishReasonName(info.reason);
  PostToWriter();
}

void GenerateCall::OnError(const absl::Status& status) { End(status); }

void GenerateCall::End(absl::Status status) {
  status = engine_ == nullptr ? WithRetry(std::move(status))
                              : WithRetry(std::move(status), engine_->RetryDelay());
  bool is_stuck = false;
  {
    const std::lock_guard lock(mutex_);
    buffer_.PutEnd(status);
    is_stuck = is_writing_ && !is_finishing_ && buffer_.IsFull();
    if (is_stuck) is_finishing_ = true;
  }
  if (is_stuck) {
    FinishUnread(status);
  } else {
    WriteNext(Clock::Steady().Now());
  }
}

// The client does not take what is being written. The status goes behind it, for a client
// that reads on; one that never does would keep the call for ever, so it is cut off.
void GenerateCall::FinishUnread(const absl::Status& end) {
  cut_off_.Set(rpc::DeadlineAfter(kFetchTimeout), [weak = weak_from_this()](bool is_due) {
    const std::shared_ptr<GenerateCall> call = weak.lock();
    if (!is_due || call == nullptr) return;
    const std::lock_guard lock(call->context_mutex_);
    if (!call->is_done_) call->context_->TryCancel();
  });
  FinishWith(end, /*has_message=*/false);
}

bool GenerateCall::IsCongested() const {
  const std::lock_guard lock(mutex_);
  return buffer_.IsFull();
}

bool GenerateCall::IsUrgent(absl::Duration now) const {
  return !buffer_.IsDeltaNext() || buffer_.IsEnding() || buffer_.IsFull() ||
         next_delta_ == -absl::InfiniteDuration() || now >= last_moments_;
}

void GenerateCall::PostToWriter() {
  if (!std::exchange(is_posted_, true)) writer_->Post(shared_from_this());
  // Without a deadline the time makes nothing urgent that was not when it came.
  const bool has_deadline = last_moments_ != absl::InfiniteDuration();
  if (IsUrgent(has_deadline ? Clock::Steady().Now() : -absl::InfiniteDuration())) writer_->Hurry();
}

absl::Duration GenerateCall::Write(absl::Duration now, MessageBudget& budget) {
  {
    const std::lock_guard lock(mutex_);
    if (!IsUrgent(now) && !is_writing_) {
      if (now < next_delta_) return next_delta_;
      if (!budget.Take()) return now;
    }
    is_posted_ = false;
  }
  WriteNext(now);
  return absl::InfiniteDuration();
}

void GenerateCall::WriteNext(absl::Duration now) {
  std::optional<absl::Status> end;
  bool was_full = false;
  bool has_message = false;
  grpc::WriteOptions options;
  {
    const std::lock_guard lock(mutex_);
    if (is_writing_ || is_finishing_) return;
    was_full = buffer_.IsFull();
    const bool is_delta = buffer_.IsDeltaNext();
    while (!is_writing_) {
      const std::optional<StreamBuffer::Event> event = buffer_.Take();
      if (!event.has_value()) break;
      is_writing_ = ToMessage(*event, stream_, &message_);
    }
    if (is_delta && is_writing_) next_delta_ = now + stream_interval_;
    ReportBuffered();
    write_start_ = now;
    has_message = is_writing_;
    end = buffer_.End();
    if (!has_message && !end.has_value()) return;
    // The last message takes the status along; one that is written apart is told by OnWriteDone.
    if (has_message && end.has_value() && !end->ok()) end.reset();
    is_finishing_ = end.has_value();
    // The last tokens leave with what follows at once. (A first message would stay behind.)
    if (is_delta && !is_finishing_ && buffer_.IsEnding()) options.set_buffer_hint();
  }
  if (has_message) bytes_ = SerializeMessage(message_);
  if (end.has_value()) {
    FinishWith(*end, has_message);
  } else {
    StartWrite(&bytes_, options);
  }
  // What waited is being written: the engine may go on with the sequence.
  if (was_full) engine_->Wake();
}

void GenerateCall::FinishWith(const absl::Status& end, bool has_message) {
  const grpc::Status status = rpc::ToGrpcStatus(end);
  metrics_->OnCall({.method = "Generate",
                    .code = rpc::CodeName(status.error_code()),
                    .reason = rpc::DetailsOf(end).reason,
                    .finish_reason = finish_reason_,
                    .is_rejected = !was_started_,
                    .duration = Clock::Steady().Now() - arrival_,
                    .request_id = stream_.request_id,
                    .traceparent = traceparent_});
  ends_with_message_ = has_message;
  if (has_message) {
    StartWriteAndFinish(&bytes_, grpc::WriteOptions(), status);
  } else {
    Finish(status);
  }
}

void GenerateCall::ReportBuffered() {
  metrics_->OnBuffered(buffer_.num_bytes() - reported_bytes_);
  reported_bytes_ = buffer_.num_bytes();
}

void GenerateCall::OnWriteDone(bool ok) {
  const absl::Duration now = Clock::Steady().Now();
  bool is_urgent = false;
  bool is_posted = false;
  absl::Duration waited;
  const char* event = "";
  {
    const std::lock_guard lock(mutex_);
    is_writing_ = false;
    event = EventName(message_);
    const bool has_more = !buffer_.IsEmpty();
    is_urgent = has_more && IsUrgent(now);
    is_posted = has_more && !is_urgent;
    if (is_posted) PostToWriter();
    waited = now - write_start_;
  }
  metrics_->OnSent(event, waited);
  if (!ok) CancelRequest("the client is gone");
  if (is_urgent) WriteNext(now);  // here: waking the writer costs as much as the message
  if (is_posted) writer_->Flush();
}

void GenerateCall::OnCancel() { CancelRequest("the client cancelled"); }

// A deadline that passes reaches the server as a cancel: by its own timer, or a little
// earlier from the client, for gRPC rounds the time that it sends up by at most 1 %, and on a
// busy machine the call arrives some time after it was sent.
void GenerateCall::CancelRequest(const char* why) {
  const absl::Duration passed = Clock::Steady().Now() - arrival_;
  const bool is_deadline = time_limit_ != absl::InfiniteDuration() &&
                           passed >= 0.95 * time_limit_ - absl::Milliseconds(50);
  const std::lock_guard lock(mutex_);
  if (cancelled_.ok()) {
    cancelled_ = is_deadline ? absl::DeadlineExceededError("the client's deadline passed")
                             : absl::CancelledError(why);
  }
  if (ticket_.has_value()) engine_->Cancel(*ticket_, cancelled_);
}

void GenerateCall::OnDone() {
  if (ends_with_message_) {
    metrics_->OnSent(EventName(message_), Clock::Steady().Now() - write_start_);
  }
  {
    const std::lock_guard lock(context_mutex_);
    is_done_ = true;
  }
  // May be the last reference: nothing of this is touched any more.
  const std::shared_ptr<GenerateCall> last = std::move(self_);
}

}  // namespace tandem::gateway
