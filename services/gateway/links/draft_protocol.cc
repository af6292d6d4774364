#include "services/gateway/links/draft_protocol.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/rpc/status_convert.h"
#include "services/gateway/links/convert_steps.h"

namespace tandem::gateway {
namespace {

namespace v1 = draft::v1;

constexpr absl::Duration kAttachTimeout = absl::Seconds(10);

}  // namespace

std::unique_ptr<DraftProtocol::Stub> DraftProtocol::NewStub(
    const std::shared_ptr<grpc::ChannelInterface>& channel) {
  return v1::DraftService::NewStub(channel);
}

absl::StatusOr<WorkerDescription> DraftProtocol::GetInfo(Stub* stub, absl::Duration timeout) {
  grpc::ClientContext context;
  context.set_deadline(rpc::DeadlineAfter(timeout));
  v1::GetInfoResponse info;
  RETURN_IF_ERROR(rpc::FromGrpcStatus(stub->GetInfo(&context, {}, &info)));
  return ToDescription(info);
}

absl::StatusOr<int64_t> DraftProtocol::Attach(Stub* stub, PoolFence* fence,
                                              WorkerDescription* description) {
  const std::optional<PoolAddress> pool = fence->Current();
  if (!pool.has_value()) return absl::UnavailableError("there is no pool without the target");
  grpc::ClientContext context;
  context.set_deadline(rpc::DeadlineAfter(kAttachTimeout));
  v1::AttachPoolRequest request;
  request.set_pool_socket_path(pool->socket_path);
  request.set_pool_epoch(pool->epoch);
  v1::AttachPoolResponse response;
  RETURN_IF_ERROR(rpc::FromGrpcStatus(stub->AttachPool(&context, request, &response)));
  if (response.positions_per_page() < 1) {
    return absl::InternalError(absl::StrCat("the draft says that a page of the pool holds ",
                                            response.positions_per_page(), " positions"));
  }
  description->facts.positions_per_page = response.positions_per_page();
  return pool->epoch;
}

bool DraftProtocol::IsCurrent(const PoolFence& fence, int64_t epoch) {
  const std::optional<PoolAddress> pool = fence.Current();
  return !pool.has_value() || pool->epoch == epoch;
}

void DraftProtocol::StartStream(Stub* stub, grpc::ClientContext* context,
                                grpc::ClientBidiReactor<Request, Response>* reactor) {
  stub->async()->Propose(context, reactor);
}

void DraftProtocol::ToMessage(const WorkerStep& step, Request* request) {
  for (const OpenSequence& open : step.open) {
    v1::OpenSequence* message = request->add_open();
    message->set_sequence_id(static_cast<int64_t>(open.sequence));
    ToSamplingMessage(open.sampling, message->mutable_sampling());
    message->mutable_cached_token_ids()->Add(open.cached_token_ids.begin(),
                                             open.cached_token_ids.end());
    message->set_traceparent(open.traceparent);
  }
  for (const SequenceStep& sequence : step.sequences) {
    v1::SequenceStep* message = request->add_sequences();
    ToSequenceMessage(sequence, message);
    message->set_draft_length(sequence.num_draft_tokens);
    message->set_min_confidence(sequence.min_confidence);
  }
  for (const SequenceId id : step.release) {
    request->add_release_sequence_ids(static_cast<int64_t>(id));
  }
}

absl::StatusOr<ProposeStepResult> DraftProtocol::FromMessage(const Response& response) {
  if (response.error_code() != 0) {
    return ErrorOf(response.error_code(), response.error_message());
  }
  ProposeStepResult result{.prefill = absl::Nanoseconds(response.prefill_ns()),
                           .draft = absl::Nanoseconds(response.draft_ns())};
  result.results.reserve(response.results_size());
  for (const v1::SequenceResult& message : response.results()) {
    ProposeResult& entry = result.results.emplace_back();
    entry.status = ErrorOf(message.error_code(), message.error_message());
    entry.draft_token_ids.assign(message.draft_token_ids().begin(),
                                 message.draft_token_ids().end());
    entry.draft_probs.assign(message.draft_probs().begin(), message.draft_probs().end());
  }
  return result;
}

}  // namespace tandem::gateway
