#include "services/gateway/generate_service_call.h"

#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/rpc/status_convert.h"
#include "services/gateway/service_errors.h"
#include "services/gateway/validation.h"

namespace tandem::gateway {
namespace {

uint64_t RandomNumber() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

// The call's deadline on the engine's clock.
absl::Duration EngineDeadline(const grpc::CallbackServerContext& context, absl::Duration now) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteDuration();
  return now + (absl::FromChrono(deadline) - absl::Now());
}

}  // namespace

GenerateCall* GenerateCall::Start(grpc::CallbackServerContext* context,
                                  const v1::GenerateRequest& request, const Backend* backend,
                                  const absl::Status& unavailable, MetricsObserver* metrics) {
  const std::shared_ptr<GenerateCall> call(new GenerateCall(context, metrics));
  call->self_ = call;
  absl::Status status = backend == nullptr ? unavailable : call->Submit(request, *backend);
  if (!status.ok()) call->End(std::move(status));
  return call.get();
}

GenerateCall::GenerateCall(grpc::CallbackServerContext* context, MetricsObserver* metrics)
    : context_(context), metrics_(metrics), arrival_(Clock::Steady().Now()) {}

absl::Status GenerateCall::Submit(const v1::GenerateRequest& message, const Backend& backend) {
  const ServedModel& model = *backend.model;
  RETURN_IF_ERROR(CheckModelName(message.model(), model.name()));
  RETURN_IF_ERROR(Validate(message, model.vocab_size()));
  ASSIGN_OR_RETURN(GenerationRequest request,
                   ToGenerationRequest(message, model,
                                       {.request_id = message.request_id().empty()
                                                          ? absl::StrFormat("%016x", RandomNumber())
                                                          : message.request_id(),
                                        .seed = RandomNumber(),
                                        .arrival = arrival_,
                                        .deadline = EngineDeadline(*context_, arrival_)}));
  RETURN_IF_ERROR(CheckPromptLength(message, static_cast<int64_t>(request.prompt.size()),
                                    backend.context_length));
  engine_ = backend.engine;
  stream_ = DescribeStream(message, request, model.name());
  absl::StatusOr<TicketId> ticket = engine_->Submit(std::move(request), shared_from_this());
  if (!ticket.ok()) return ticket.status();
  const std::lock_guard lock(mutex_);
  ticket_ = *ticket;
  // The call may have been cancelled while the prompt was tokenized.
  if (is_cancelled_) engine_->Cancel(*ticket_, absl::CancelledError("the client cancelled"));
  return absl::OkStatus();
}

void GenerateCall::OnStarted(const StartedInfo& info) {
  {
    const std::lock_guard lock(mutex_);
    buffer_.PutStarted(info);
  }
  Pump();
}

void GenerateCall::OnDelta(TokenDelta delta) {
  {
    const std::lock_guard lock(mutex_);
    buffer_.PutDelta(std::move(delta));
  }
  Pump();
}

void GenerateCall::OnFinished(const FinishedInfo& info) {
  {
    const std::lock_guard lock(mutex_);
    buffer_.PutFinished(info);
    buffer_.PutEnd(absl::OkStatus());
    finish_reason_ = FinishReasonName(info.reason);
  }
  Pump();
}

void GenerateCall::OnError(const absl::Status& status) { End(status); }

void GenerateCall::End(absl::Status status) {
  bool is_stuck = false;
  {
    const std::lock_guard lock(mutex_);
    buffer_.PutEnd(WithRetry(std::move(status)));
    is_stuck = is_writing_ && buffer_.IsFull();
  }
  // A write that the client does not take would keep the call for ever.
  if (is_stuck) context_->TryCancel();
  Pump();
}

bool GenerateCall::IsCongested() const {
  const std::lock_guard lock(mutex_);
  return buffer_.IsFull();
}

void GenerateCall::Pump() {
  std::optional<absl::Status> end;
  {
    const std::lock_guard lock(mutex_);
    if (is_writing_ || is_finishing_) return;
    while (!is_writing_) {
      const std::optional<StreamBuffer::Event> event = buffer_.Take();
      if (!event.has_value()) break;
      is_writing_ = ToMessage(*event, stream_, &message_);
    }
    if (!is_writing_) {
      end = buffer_.End();
      if (!end.has_value()) return;
      is_finishing_ = true;
    }
  }
  if (!end.has_value()) {
    StartWrite(&message_);
    return;
  }
  const grpc::Status status = rpc::ToGrpcStatus(*end);
  metrics_->OnCall({.method = "Generate",
                    .code = rpc::CodeName(status.error_code()),
                    .finish_reason = finish_reason_,
                    .duration = Clock::Steady().Now() - arrival_});
  Finish(status);
}

void GenerateCall::OnWriteDone(bool ok) {
  bool may_go_on = false;
  {
    const std::lock_guard lock(mutex_);
    is_writing_ = false;
    may_go_on = buffer_.IsFull();
  }
  if (!ok) CancelRequest("the client is gone");
  Pump();
  // What waited is being written: the engine may go on with the sequence.
  if (may_go_on && engine_ != nullptr) engine_->Wake();
}

void GenerateCall::OnCancel() { CancelRequest("the client cancelled"); }

void GenerateCall::CancelRequest(const char* why) {
  const std::lock_guard lock(mutex_);
  is_cancelled_ = true;
  if (ticket_.has_value()) engine_->Cancel(*ticket_, absl::CancelledError(why));
}

void GenerateCall::OnDone() {
  // May be the last reference: nothing of this is touched any more.
  const std::shared_ptr<GenerateCall> last = std::move(self_);
}

}  // namespace tandem::gateway
