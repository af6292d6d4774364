#include "services/target/service_messages.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/build_info.h"
#include "common/worker/worker_process.h"

namespace tandem::target {
namespace {

SamplingParams FromMessage(const v1::Sampling& message) {
  SamplingParams params = {
      .temperature = message.temperature(),
      .top_k = message.top_k(),
      .top_p = message.top_p(),
      .min_p = message.min_p(),
      .repetition_penalty = message.repetition_penalty(),
      .presence_penalty = message.presence_penalty(),
      .frequency_penalty = message.frequency_penalty(),
      .seed = message.seed(),
      .rule = static_cast<AcceptanceRule>(message.rule()),
      .prompt_tokens = message.prompt_tokens(),
      .min_tokens = message.min_tokens(),
      .end_token_ids = {message.end_token_ids().begin(), message.end_token_ids().end()},
      .used_vocab_size = message.used_vocabulary_size(),
      .logprobs = message.logprobs(),
      .top_logprobs = message.top_logprobs(),
  };
  params.logit_bias.reserve(message.logit_bias_size());
  for (const v1::LogitBias& bias : message.logit_bias()) {
    params.logit_bias.emplace_back(bias.token_id(), bias.bias());
  }
  return params;
}

absl::StatusOr<worker::SequenceStep> FromMessage(const v1::SequenceStep& message) {
  if (message.page_ids_size() != message.page_generations_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("sequence ", message.sequence_id(), " has ", message.page_ids_size(),
                     " page_ids and ", message.page_generations_size(), " page_generations"));
  }
  worker::SequenceStep step = {
      .sequence = SequenceId(message.sequence_id()),
      .start_position = message.start_position(),
      .token_ids = {message.token_ids().begin(), message.token_ids().end()},
      .first_page = message.first_page(),
      .draft_probs_slot = message.draft_probs_slot(),
      .draft_token_ids = {message.draft_token_ids().begin(), message.draft_token_ids().end()},
      .sample = message.sample(),
  };
  step.pages.reserve(message.page_ids_size());
  for (int i = 0; i < message.page_ids_size(); ++i) {
    step.pages.push_back({PageId(message.page_ids(i)), message.page_generations(i)});
  }
  return step;
}

void ToMessage(const worker::VerifyResult& result, v1::SequenceResult* message) {
  message->set_sequence_id(static_cast<int64_t>(result.sequence));
  if (!result.status.ok()) {
    message->set_error_code(static_cast<int32_t>(result.status.code()));
    message->set_error_message(std::string(result.status.message()));
    message->set_next_token_id(-1);
    return;
  }
  message->set_accepted_token_count(result.num_accepted);
  message->set_next_token_id(result.next_token_id);
  for (const TokenLogprob& logprob : result.logprobs) {
    v1::TokenLogprob* entry = message->add_logprobs();
    entry->set_logprob(logprob.logprob);
    for (const auto& [id, value] : logprob.top) {
      entry->add_top_token_ids(id);
      entry->add_top_logprobs(value);
    }
  }
}

}  // namespace

absl::StatusOr<worker::WorkerStep> FromMessage(const v1::VerifyRequest& request) {
  worker::WorkerStep step = {.step_id = request.step_id(), .pool_epoch = request.pool_epoch()};
  step.copies.reserve(request.copies_size());
  for (const v1::PageCopy& copy : request.copies()) {
    step.copies.push_back(
        {.page = PageId(copy.page_id()), .swap_page = copy.swap_page(), .to_host = copy.to_host()});
  }
  for (const v1::OpenSequence& open : request.open()) {
    step.open.push_back(
        {.sequence = SequenceId(open.sequence_id()),
         .sampling = FromMessage(open.sampling()),
         .cached_token_ids = {open.cached_token_ids().begin(), open.cached_token_ids().end()},
         .traceparent = open.traceparent()});
  }
  for (const v1::SequenceStep& message : request.sequences()) {
    absl::StatusOr<worker::SequenceStep> sequence = FromMessage(message);
    if (!sequence.ok()) return sequence.status();
    step.sequences.push_back(*std::move(sequence));
  }
  for (const int64_t id : request.release_sequence_ids()) step.release.push_back(SequenceId(id));
  return step;
}

void ToMessage(const worker::VerifyStepResult& result, v1::VerifyResponse* response) {
  response->set_step_id(result.step_id);
  response->set_copy_ns(absl::ToInt64Nanoseconds(result.copy));
  response->set_forward_ns(absl::ToInt64Nanoseconds(result.forward));
  response->set_sample_ns(absl::ToInt64Nanoseconds(result.sample));
  if (!result.status.ok()) {
    response->set_error_code(static_cast<int32_t>(result.status.code()));
    response->set_error_message(std::string(result.status.message()));
    return;
  }
  for (const worker::VerifyResult& sequence : result.results) {
    ToMessage(sequence, response->add_results());
  }
}

void ToMessage(const TargetInfo& info, v1::GetInfoResponse* response) {
  response->set_model_name(info.model_name);
  response->set_architecture("llama");
  response->set_quantization(info.quantization);
  response->set_parameter_count(info.num_parameters);
  response->set_vocabulary_size(info.vocab_size);
  response->set_context_length_tokens(info.context_length);
  response->set_device(info.is_cuda ? "cuda" : "cpu");
  response->set_device_name(info.device_name);
  response->set_kv_type(info.kv_type);
  response->set_model_path(info.model_path);
  response->set_weights_bytes(info.weight_bytes);
  response->set_workspace_bytes(info.workspace_bytes);
  if (info.memory) {
    const worker::DeviceMemory memory = info.memory();
    response->set_device_total_bytes(memory.total_bytes);
    response->set_device_free_bytes(memory.free_bytes);
    response->set_other_bytes(std::max<int64_t>(0, memory.unaccounted_bytes));
  } else {
    response->set_other_bytes(std::max<int64_t>(
        0, worker::ResidentPrivateBytes() - info.weight_bytes - info.workspace_bytes));
  }
  response->set_pool_socket_path(info.pool_socket_path);
  response->set_pool_epoch(info.pool_epoch);
  response->set_pool_page_count(info.num_pages);
  response->set_pool_page_bytes(info.page_bytes);
  response->set_positions_per_page(info.positions_per_page);
  response->set_swap_page_count(info.num_swap_pages);
  response->set_max_step_tokens(info.max_step_tokens);
  response->set_max_logits_rows(info.max_logits_rows);
  response->set_max_sequences(info.max_sequences);
  response->set_incarnation(info.incarnation);
  response->set_ring_name(info.ring_name);
  response->set_model_fingerprint(info.model_fingerprint);
  response->set_restart_reason(info.restart_reason);
  response->set_map_ns(absl::ToInt64Nanoseconds(info.map));
  response->set_upload_ns(absl::ToInt64Nanoseconds(info.upload));
  response->set_warmup_ns(absl::ToInt64Nanoseconds(info.warmup));
  response->set_build_version(kBuildInfo.version);
  response->set_build_commit(kBuildInfo.commit);
  response->set_build_cuda(kBuildInfo.cuda);
}

}  // namespace tandem::target
