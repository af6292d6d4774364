#include "services/gateway/links/target_protocol.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/rpc/status_convert.h"
#include "services/gateway/links/convert_steps.h"

namespace tandem::gateway {
namespace {

namespace v1 = target::v1;

TokenLogprob FromMessage(const v1::TokenLogprob& message) {
  TokenLogprob logprob{.logprob = message.logprob()};
  const int count = std::min(message.top_token_ids_size(), message.top_logprobs_size());
  logprob.top.reserve(count);
  for (int i = 0; i < count; ++i) {
    logprob.top.emplace_back(message.top_token_ids(i), message.top_logprobs(i));
  }
  return logprob;
}

}  // namespace

std::unique_ptr<TargetProtocol::Stub> TargetProtocol::NewStub(
    const std::shared_ptr<grpc::ChannelInterface>& channel) {
  return v1::TargetService::NewStub(channel);
}

absl::StatusOr<WorkerDescription> TargetProtocol::GetInfo(Stub* stub, absl::Duration timeout) {
  grpc::ClientContext context;
  context.set_deadline(rpc::DeadlineAfter(timeout));
  v1::GetInfoResponse info;
  RETURN_IF_ERROR(rpc::FromGrpcStatus(stub->GetInfo(&context, {}, &info)));
  WorkerDescription description = ToDescription(info);
  description.facts.positions_per_page = info.positions_per_page();
  description.facts.num_swap_pages = info.swap_page_count();
  description.device_name = info.device_name();
  description.model_fingerprint = info.model_fingerprint();
  description.pool_socket_path = info.pool_socket_path();
  description.pool_epoch = info.pool_epoch();
  description.num_pages = info.pool_page_count();
  description.page_bytes = info.pool_page_bytes();
  description.device_total_bytes = info.device_total_bytes();
  description.device_free_bytes = info.device_free_bytes();
  return description;
}

absl::Status TargetProtocol::CheckReplacement(const WorkerDescription& served,
                                              const WorkerDescription& found) {
  if (served.model_fingerprint == found.model_fingerprint && served.kv_type == found.kv_type) {
    return absl::OkStatus();
  }
  const auto describe = [](const WorkerDescription& worker) {
    return absl::StrCat(worker.name, " from ", worker.model_path, " (", worker.quantization,
                        ", fingerprint ", worker.model_fingerprint, ", ", worker.kv_type, " KV)");
  };
  return absl::FailedPreconditionError(
      absl::StrCat("the target was restarted with another model: served is ", describe(served),
                   ", now there is ", describe(found),
                   ": restart the gateway to serve it, or start the target with what it was"));
}

absl::StatusOr<int64_t> TargetProtocol::Attach(Stub*, PoolFence* fence,
                                               WorkerDescription* description) {
  ASSIGN_OR_RETURN(SharedPool pool, ConnectPool({.path = description->pool_socket_path,
                                                 .epoch = description->pool_epoch,
                                                 .map_pages = false}));
  fence->Publish(std::move(pool), description->pool_socket_path);
  return description->pool_epoch;
}

void TargetProtocol::StartStream(Stub* stub, grpc::ClientContext* context,
                                 grpc::ClientBidiReactor<Request, Response>* reactor) {
  stub->async()->Verify(context, reactor);
}

void TargetProtocol::ToMessage(const WorkerStep& step, Request* request) {
  for (const PageCopy& copy : step.copies) {
    v1::PageCopy* message = request->add_copies();
    message->set_page_id(static_cast<int32_t>(copy.page));
    message->set_swap_page(copy.swap_page);
    message->set_to_host(copy.to_host);
  }
  for (const OpenSequence& open : step.open) {
    v1::OpenSequence* message = request->add_open();
    message->set_sequence_id(static_cast<int64_t>(open.sequence));
    ToSamplingMessage(open.sampling, message->mutable_sampling());
    message->mutable_cached_token_ids()->Add(open.cached_token_ids.begin(),
                                             open.cached_token_ids.end());
    message->set_traceparent(open.traceparent);
    message->mutable_sampling()->set_logprobs(open.sampling.logprobs);
    message->mutable_sampling()->set_top_logprobs(open.sampling.top_logprobs);
  }
  for (const SequenceStep& sequence : step.sequences) {
    v1::SequenceStep* message = request->add_sequences();
    ToSequenceMessage(sequence, message);
    message->mutable_draft_token_ids()->Add(sequence.draft_token_ids.begin(),
                                            sequence.draft_token_ids.end());
    message->set_sample(sequence.sample);
  }
  for (const SequenceId id : step.release) {
    request->add_release_sequence_ids(static_cast<int64_t>(id));
  }
}

absl::StatusOr<VerifyStepResult> TargetProtocol::FromMessage(const Response& response) {
  if (response.error_code() != 0) {
    return ErrorOf(response.error_code(), response.error_message());
  }
  VerifyStepResult result{.copy = absl::Nanoseconds(response.copy_ns()),
                          .forward = absl::Nanoseconds(response.forward_ns()),
                          .sample = absl::Nanoseconds(response.sample_ns())};
  result.results.reserve(response.results_size());
  for (const v1::SequenceResult& message : response.results()) {
    VerifyResult& entry = result.results.emplace_back();
    entry.status = ErrorOf(message.error_code(), message.error_message());
    entry.num_accepted = message.accepted_token_count();
    entry.next_token_id = message.next_token_id();
    for (const v1::TokenLogprob& logprob : message.logprobs()) {
      entry.logprobs.push_back(gateway::FromMessage(logprob));
    }
  }
  return result;
}

}  // namespace tandem::gateway
