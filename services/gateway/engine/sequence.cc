#include "services/gateway/engine/sequence.h"

namespace tandem::gateway {

Sequence::Sequence(SequenceId id, GenerationRequest request, GenerationSink* sink,
                   const Tokenizer* tokenizer, const SequenceLimits& limits)
    : id(id),
      request(std::move(request)),
      sink(sink),
      limits(limits),
      num_prompt_tokens(static_cast<int32_t>(this->request.prompt.size())),
      tokens(std::move(this->request.prompt)),
      output(tokenizer, this->request.stopping, limits.max_tokens, limits.reason_at_max_tokens) {
  this->request.prompt.clear();
  this->request.sampling.prompt_tokens = num_prompt_tokens;
  if (may_use_lookup()) lookup.Append(tokens);
  info.prompt_tokens = num_prompt_tokens;
  rank = this->request.priority;
}

std::optional<OutputAssembler::End> Sequence::Commit(int32_t token_id,
                                                     const TokenLogprob* logprob) {
  tokens.push_back(token_id);
  if (may_use_lookup()) lookup.Append({token_id});
  return output.Append(token_id, logprob);
}

void Sequence::Trace(StepTraceEntry entry) {
  constexpr size_t kMaxEntries = 4096;  // as the proto promises
  if (info.trace.size() < kMaxEntries) info.trace.push_back(std::move(entry));
}

}  // namespace tandem::gateway
