// Between the engine's structs and what target/v1 and draft/v1 have in common.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "services/gateway/engine/worker_link.h"
#include "services/gateway/links/worker_description.h"

namespace tandem::gateway {

template <class Message>
void ToSamplingMessage(const SamplingParams& params, Message* message) {
  message->set_temperature(params.temperature);
  message->set_top_k(params.top_k);
  message->set_top_p(params.top_p);
  message->set_min_p(params.min_p);
  message->set_repetition_penalty(params.repetition_penalty);
  message->set_presence_penalty(params.presence_penalty);
  message->set_frequency_penalty(params.frequency_penalty);
  message->set_seed(params.seed);
  for (const auto& [token_id, bias] : params.logit_bias) {
    auto* entry = message->add_logit_bias();
    entry->set_token_id(token_id);
    entry->set_bias(bias);
  }
  message->set_rule(static_cast<int32_t>(params.rule));
  message->set_prompt_tokens(params.prompt_tokens);
  message->set_min_tokens(params.min_tokens);
  message->mutable_end_token_ids()->Add(params.end_token_ids.begin(), params.end_token_ids.end());
  message->set_used_vocabulary_size(params.used_vocab_size);
}

// What both workers need of a sequence.
template <class Message>
void ToSequenceMessage(const SequenceStep& step, Message* message) {
  message->set_sequence_id(static_cast<int64_t>(step.sequence));
  message->set_start_position(step.start_position);
  message->mutable_token_ids()->Add(step.token_ids.begin(), step.token_ids.end());
  message->set_first_page(step.first_page);
  for (const PageEntry& page : step.pages) {
    message->add_page_ids(static_cast<int32_t>(page.page));
    message->add_page_generations(page.generation);
  }
  message->set_draft_probs_slot(step.draft_probs_slot);
}

template <class Info>
WorkerDescription ToDescription(const Info& info) {
  return {.name = info.model_name(),
          .architecture = info.architecture(),
          .quantization = info.quantization(),
          .num_parameters = info.parameter_count(),
          .device = info.device(),
          .kv_type = info.kv_type(),
          .model_path = info.model_path(),
          .weight_bytes = info.weights_bytes(),
          .workspace_bytes = info.workspace_bytes(),
          .other_bytes = info.other_bytes(),
          .incarnation = info.incarnation(),
          .restart_reason = info.restart_reason(),
          .map = absl::Nanoseconds(info.map_ns()),
          .upload = absl::Nanoseconds(info.upload_ns()),
          .warmup = absl::Nanoseconds(info.warmup_ns()),
          .ring_path = info.ring_name(),
          .build_version = info.build_version(),
          .build_commit = info.build_commit(),
          .build_cuda = info.build_cuda(),
          .facts = {.vocab_size = info.vocabulary_size(),
                    .context_length = info.context_length_tokens(),
                    .max_step_tokens = info.max_step_tokens(),
                    .max_logits_rows = info.max_logits_rows(),
                    .max_sequences = info.max_sequences()}};
}

// Error of a whole step or of one sequence; `code` is a google.rpc.Code, which absl's are.
inline absl::Status ErrorOf(int32_t code, const std::string& message) {
  return absl::Status(static_cast<absl::StatusCode>(code), message);
}

}  // namespace tandem::gateway
