#include "services/gateway/service.h"

#include <algorithm>
#include <utility>

#include "common/base/build_info.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "common/rpc/status_convert.h"
#include "common/tokenizer/utf8.h"
#include "services/gateway/convert.h"
#include "services/gateway/generate_service_call.h"
#include "services/gateway/request_limits.h"
#include "services/gateway/service_errors.h"
#include "services/gateway/service_wire.h"
#include "services/gateway/validation.h"

namespace tandem::gateway {
namespace {

absl::Status Tokenize(const ServedModel& model, const v1::TokenizeRequest& request,
                      v1::TokenizeResponse* response) {
  RETURN_IF_ERROR(CheckModelName(request.model(), model.name()));
  RETURN_IF_ERROR(Validate(request));
  std::vector<int32_t> ids;
  if (request.has_chat()) {
    ASSIGN_OR_RETURN(ServedModel::RenderedChat chat, RenderChat(request.chat(), model));
    response->set_rendered_prompt(ReplaceInvalidUtf8(chat.text));
    ids = std::move(chat.token_ids);
  } else {
    ASSIGN_OR_RETURN(
        ids, model.EncodeText(request.text(), {.add_bos = request.add_special_tokens(),
                                               .parse_special = request.parse_special_tokens()}));
  }
  response->mutable_token_ids()->Add(ids.begin(), ids.end());
  return absl::OkStatus();
}

absl::Status Detokenize(const ServedModel& model, const v1::DetokenizeRequest& request,
                        v1::DetokenizeResponse* response) {
  RETURN_IF_ERROR(CheckModelName(request.model(), model.name()));
  RETURN_IF_ERROR(Validate(request, model.vocab_size()));
  const std::vector<int32_t> ids(request.token_ids().begin(), request.token_ids().end());
  response->set_text(
      ReplaceInvalidUtf8(model.tokenizer().Decode(ids, request.render_special_tokens())));
  return absl::OkStatus();
}

void SetLimits(const Backend& backend, v1::Limits* limits) {
  limits->set_max_running_requests(backend.max_running);
  limits->set_max_waiting_requests(backend.max_waiting);
  limits->set_max_request_bytes(kMaxRequestBytes);
  limits->set_max_stop_strings(kMaxStopStrings);
  limits->set_max_stop_bytes(kMaxStopBytes);
  limits->set_max_logit_bias_entries(kMaxLogitBiasEntries);
  limits->set_max_draft_length(kMaxDraftLength);
  limits->set_max_top_logprobs(kMaxTopLogprobs);
  limits->set_max_requests_per_client(backend.admission.max_requests_per_client);
  limits->set_max_queued_tokens(backend.admission.max_queued_tokens);
  limits->set_max_priority(kMaxPriority);
}

absl::Status GetModel(const Backend& backend, const v1::GetModelRequest& request,
                      v1::GetModelResponse* response) {
  const ServedModel& model = *backend.model;
  RETURN_IF_ERROR(CheckModelName(request.model(), model.name()));
  response->set_model(model.name());
  response->set_vocabulary_size(model.vocab_size());
  response->set_context_length_tokens(backend.context_length);
  response->set_has_chat_template(model.has_chat_template());
  response->set_bos_token_id(model.tokenizer().bos_id());
  response->set_eos_token_id(model.tokenizer().eos_id());
  response->set_server_version(kBuildInfo.version);
  SetLimits(backend, response->mutable_limits());
  if (const auto target = backend.target->Description()) {
    ToMessage(*target, backend.target->IsConnected(), response->mutable_target());
    response->mutable_kv_pool()->set_page_count(target->num_pages);
    response->mutable_kv_pool()->set_page_bytes(target->page_bytes);
    response->mutable_kv_pool()->set_target_positions_per_page(target->facts.positions_per_page);
  }
  if (backend.draft == nullptr) return absl::OkStatus();
  response->mutable_draft();  // configured, even if it never came
  if (const auto draft = backend.draft->Description()) {
    ToMessage(*draft, backend.draft->IsConnected(), response->mutable_draft());
    response->mutable_kv_pool()->set_draft_positions_per_page(draft->facts.positions_per_page);
  }
  return absl::OkStatus();
}

}  // namespace

void GatewayServiceImpl::SetBackend(const Backend& backend) {
  const std::lock_guard lock(mutex_);
  backend_ = backend;
  is_ready_ = true;
}

void GatewayServiceImpl::Drain() {
  const std::lock_guard lock(mutex_);
  is_draining_ = true;
}

const Backend* GatewayServiceImpl::backend() const {
  const std::lock_guard lock(mutex_);
  return is_ready_ ? &backend_ : nullptr;
}

bool GatewayServiceImpl::is_draining() const {
  const std::lock_guard lock(mutex_);
  return is_draining_;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GatewayServiceImpl::Generate(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  const bool is_draining = this->is_draining();
  return GenerateCall::Start(context, *request, is_draining ? nullptr : backend(),
                             is_draining ? DrainingError() : StartingError(), metrics_);
}

template <class Request, class Response, class Run>
grpc::ServerUnaryReactor* GatewayServiceImpl::RunUnary(const char* method,
                                                       grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer& request,
                                                       grpc::ByteBuffer* response, Run run) {
  const absl::Duration start = Clock::Steady().Now();
  const Backend* backend = this->backend();
  Request message;
  Response answer;
  absl::Status result = backend == nullptr ? StartingError() : ParseMessage(request, &message);
  if (result.ok()) result = run(*backend, message, &answer);
  result = WithRetry(std::move(result));
  if (result.ok()) *response = SerializeMessage(answer);
  const grpc::Status status = rpc::ToGrpcStatus(result);
  metrics_->OnCall({.method = method,
                    .code = rpc::CodeName(status.error_code()),
                    .reason = rpc::DetailsOf(result).reason,
                    .duration = Clock::Steady().Now() - start});
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

grpc::ServerUnaryReactor* GatewayServiceImpl::Tokenize(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  return RunUnary<v1::TokenizeRequest, v1::TokenizeResponse>(
      "Tokenize", context, *request, response,
      [](const Backend& backend, const auto& message, auto* answer) {
        return gateway::Tokenize(*backend.model, message, answer);
      });
}

grpc::ServerUnaryReactor* GatewayServiceImpl::Detokenize(grpc::CallbackServerContext* context,
                                                         const grpc::ByteBuffer* request,
                                                         grpc::ByteBuffer* response) {
  return RunUnary<v1::DetokenizeRequest, v1::DetokenizeResponse>(
      "Detokenize", context, *request, response,
      [](const Backend& backend, const auto& message, auto* answer) {
        return gateway::Detokenize(*backend.model, message, answer);
      });
}

grpc::ServerUnaryReactor* GatewayServiceImpl::GetModel(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  return RunUnary<v1::GetModelRequest, v1::GetModelResponse>(
      "GetModel", context, *request, response,
      [](const Backend& backend, const auto& message, auto* answer) {
        return gateway::GetModel(backend, message, answer);
      });
}

}  // namespace tandem::gateway
