#include "services/gateway/convert.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace tandem::gateway {
namespace {

SamplingParams ToSampling(const v1::GenerateRequest& request, const ServedModel& model,
                          const RequestContext& context) {
  const v1::Sampling& sampling = request.sampling();
  SamplingParams params{
      .temperature = sampling.temperature(),
      .top_k = sampling.top_k(),
      .top_p = sampling.has_top_p() ? sampling.top_p() : 1.0f,
      .min_p = sampling.min_p(),
      .repetition_penalty =
          sampling.has_repetition_penalty() ? sampling.repetition_penalty() : 1.0f,
      .presence_penalty = sampling.presence_penalty(),
      .frequency_penalty = sampling.frequency_penalty(),
      .seed = sampling.has_seed() ? sampling.seed() : context.seed,
      .rule = request.speculation().rule() == v1::RULE_REJECTION ? AcceptanceRule::kRejection
                                                                 : AcceptanceRule::kCoupled,
      .min_tokens = request.stopping().min_tokens(),
      .used_vocab_size = model.used_vocab_size(),
      .logprobs = request.output().logprobs() || request.output().top_logprobs() > 0,
      .top_logprobs = request.output().top_logprobs(),
  };
  params.logit_bias.assign(sampling.logit_bias().begin(), sampling.logit_bias().end());
  if (params.min_tokens > 0) {
    const v1::Stopping& stopping = request.stopping();
    if (!stopping.ignore_eos()) {
      params.end_token_ids.assign(model.end_token_ids().begin(), model.end_token_ids().end());
    }
    params.end_token_ids.insert(params.end_token_ids.end(), stopping.stop_token_ids().begin(),
                                stopping.stop_token_ids().end());
  }
  return params;
}

SpeculationMode ToMode(v1::Mode mode) {
  switch (mode) {
    case v1::MODE_OFF:
      return SpeculationMode::kOff;
    case v1::MODE_DRAFT:
      return SpeculationMode::kDraft;
    case v1::MODE_LOOKUP:
      return SpeculationMode::kLookup;
    default:
      return SpeculationMode::kAuto;
  }
}

absl::StatusOr<std::vector<int32_t>> ToPrompt(const v1::GenerateRequest& request,
                                              const ServedModel& model) {
  if (request.has_token_ids()) {
    return std::vector<int32_t>(request.token_ids().ids().begin(), request.token_ids().ids().end());
  }
  if (request.has_chat()) {
    ASSIGN_OR_RETURN(ServedModel::RenderedChat chat, RenderChat(request.chat(), model));
    return std::move(chat.token_ids);
  }
  return model.EncodeText(request.prompt(), {.parse_special = request.parse_special_tokens()});
}

void Set(absl::Duration duration, google::protobuf::Duration* message) {
  const int64_t nanos = absl::ToInt64Nanoseconds(duration);
  message->set_seconds(nanos / 1'000'000'000);
  message->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
}

v1::FinishReason ToMessage(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStopToken:
      return v1::FINISH_REASON_STOP_TOKEN;
    case FinishReason::kStopString:
      return v1::FINISH_REASON_STOP_STRING;
    case FinishReason::kMaxTokens:
      return v1::FINISH_REASON_MAX_TOKENS;
    case FinishReason::kContextFull:
      return v1::FINISH_REASON_CONTEXT_FULL;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

void ToMessage(const StartedInfo& info, const StreamDescription& stream, v1::Started* message) {
  message->set_request_id(stream.request_id);
  message->set_model(stream.model);
  message->set_prompt_tokens(stream.prompt_tokens);
  message->set_cached_tokens(info.cached_tokens);
  Set(info.queue_time, message->mutable_queue_time());
  message->set_seed(stream.seed);
}

void ToMessage(const TokenDelta& delta, const StreamDescription& stream, v1::Delta* message) {
  message->set_text(delta.text);
  if (stream.with_token_ids) {
    message->mutable_token_ids()->Add(delta.token_ids.begin(), delta.token_ids.end());
  }
  if (!stream.with_logprobs) return;
  for (size_t i = 0; i < delta.logprobs.size() && i < delta.token_ids.size(); ++i) {
    v1::TokenLogprob* entry = message->add_logprobs();
    entry->set_token_id(delta.token_ids[i]);
    entry->set_logprob(delta.logprobs[i].logprob);
    for (const auto& [id, logprob] : delta.logprobs[i].top) {
      v1::TokenLogprob::Alternative* alternative = entry->add_top();
      alternative->set_token_id(id);
      alternative->set_logprob(logprob);
    }
  }
}

void ToMessage(const FinishedInfo& info, const StreamDescription& stream,
               v1::SpeculationReport* report) {
  report->set_mode(stream.mode);
  report->set_rule(stream.rule);
  report->set_step_count(info.num_steps);
  report->set_draft_token_count(info.num_draft_tokens);
  report->set_accepted_token_count(info.num_accepted);
  report->set_lookup_draft_token_count(info.num_lookup_draft_tokens);
  report->set_lookup_accepted_token_count(info.num_lookup_accepted);
  const double accepted = info.num_accepted;
  if (info.num_draft_tokens > 0) report->set_acceptance_rate(accepted / info.num_draft_tokens);
  report->set_acceptance_length(1.0 + (info.num_steps > 0 ? accepted / info.num_steps : 0.0));
  for (const auto& [reason, count] : info.bypass_reasons) {
    (*report->mutable_bypass_reasons())[std::string(reason)] = count;
  }
  for (const StepTraceEntry& step : info.trace) {
    v1::StepTrace* entry = report->add_trace();
    entry->set_source(step.source);
    entry->set_drafted(step.drafted);
    entry->set_accepted(step.accepted);
    entry->set_reason(step.reason);
  }
  report->set_preemption_count(info.num_preemptions);
}

void ToMessage(const FinishedInfo& info, const StreamDescription& stream, v1::Finished* message) {
  message->set_reason(ToMessage(info.reason));
  message->set_stop(info.stop);
  message->set_stop_token_id(info.stop_token_id);
  message->mutable_usage()->set_prompt_tokens(info.prompt_tokens);
  message->mutable_usage()->set_cached_tokens(info.cached_tokens);
  message->mutable_usage()->set_output_tokens(info.output_tokens);
  v1::Timings* timings = message->mutable_timings();
  Set(info.queue, timings->mutable_queue());
  Set(info.prefill, timings->mutable_prefill());
  Set(info.decode, timings->mutable_decode());
  Set(info.time_to_first_token, timings->mutable_time_to_first_token());
  Set(info.total, timings->mutable_total());
  Set(info.estimated_plain_decode, timings->mutable_estimated_plain_decode());
  ToMessage(info, stream, message->mutable_speculation());
}

}  // namespace

absl::StatusOr<ServedModel::RenderedChat> RenderChat(const v1::Chat& chat,
                                                     const ServedModel& model) {
  std::vector<ChatMessage> messages;
  messages.reserve(chat.messages_size());
  for (const v1::ChatMessage& message : chat.messages()) {
    messages.push_back({.role = message.role(), .content = message.content()});
  }
  return model.RenderChat(messages, !chat.omit_generation_prompt());
}

absl::StatusOr<GenerationRequest> ToGenerationRequest(const v1::GenerateRequest& request,
                                                      const ServedModel& model,
                                                      const RequestContext& context) {
  const v1::Stopping& stopping = request.stopping();
  GenerationRequest result{
      .request_id = context.request_id,
      .traceparent = context.traceparent,
      .sampling = ToSampling(request, model, context),
      .stopping = {.max_tokens = stopping.max_tokens(),
                   .stop = {stopping.stop().begin(), stopping.stop().end()},
                   .stop_token_ids = {stopping.stop_token_ids().begin(),
                                      stopping.stop_token_ids().end()},
                   .ignore_eos = stopping.ignore_eos(),
                   .include_stop = stopping.include_stop()},
      .speculation = {.mode = ToMode(request.speculation().mode()),
                      .draft_length = request.speculation().draft_length(),
                      .trace = request.output().speculation_trace()},
      .priority = request.priority(),
      .client = context.client,
      .arrival = context.arrival,
      .deadline = context.deadline,
  };
  ASSIGN_OR_RETURN(result.prompt, ToPrompt(request, model));
  result.sampling.prompt_tokens = static_cast<int32_t>(result.prompt.size());
  return result;
}

StreamDescription DescribeStream(const v1::GenerateRequest& message,
                                 const GenerationRequest& request, const std::string& model) {
  const v1::Speculation& speculation = message.speculation();
  return {
      .request_id = request.request_id,
      .model = model,
      .prompt_tokens = request.sampling.prompt_tokens,
      .seed = request.sampling.seed,
      .with_token_ids = message.output().token_ids(),
      .with_logprobs = request.sampling.logprobs,
      .mode = speculation.mode() == v1::MODE_UNSPECIFIED ? v1::MODE_AUTO : speculation.mode(),
      .rule = speculation.rule() == v1::RULE_UNSPECIFIED ? v1::RULE_COUPLED : speculation.rule()};
}

bool ToMessage(const StreamBuffer::Event& event, const StreamDescription& stream,
               v1::GenerateResponse* response) {
  response->Clear();
  if (const auto* started = std::get_if<StartedInfo>(&event)) {
    ToMessage(*started, stream, response->mutable_started());
    return true;
  }
  if (const auto* finished = std::get_if<FinishedInfo>(&event)) {
    ToMessage(*finished, stream, response->mutable_finished());
    return true;
  }
  ToMessage(std::get<TokenDelta>(event), stream, response->mutable_delta());
  const v1::Delta& delta = response->delta();
  return !delta.text().empty() || !delta.token_ids().empty() || !delta.logprobs().empty();
}

const char* EventName(const v1::GenerateResponse& response) {
  if (response.has_started()) return "started";
  return response.has_delta() ? "delta" : "finished";
}

void ToMessage(const WorkerDescription& worker, bool is_up, v1::WorkerInfo* message) {
  message->set_name(worker.name);
  message->set_architecture(worker.architecture);
  message->set_quantization(worker.quantization);
  message->set_parameter_count(worker.num_parameters);
  message->set_weights_bytes(worker.weight_bytes);
  message->set_device(worker.device);
  message->set_kv_type(worker.kv_type);
  message->set_up(is_up);
}

const char* FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStopToken:
      return "stop";
    case FinishReason::kStopString:
      return "stop_sequence";
    case FinishReason::kMaxTokens:
      return "length";
    case FinishReason::kContextFull:
      return "context_full";
  }
  return "none";
}

}  // namespace tandem::gateway
