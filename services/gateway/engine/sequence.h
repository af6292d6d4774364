// A request on its way through the engine.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/kv/prefix_index.h"
#include "common/speculation/controller.h"
#include "common/speculation/lookup.h"
#include "services/gateway/engine/output_assembler.h"
#include "services/gateway/engine/request.h"
#include "services/gateway/engine/worker_link.h"

namespace tandem::gateway {

// What one worker has of a sequence.
struct RoleState {
  bool is_open = false;        // the worker has it
  int32_t kv_length = 0;       // tokens whose KV is right
  std::vector<PageId> pages;   // one reference each
  int32_t num_pages_sent = 0;  // entries of its page table that the worker knows
  // The first pages are in the prefix cache: how many, and the prefix they end with.
  int32_t num_pages_shared = 0;
  PrefixId prefix = kEmptyPrefix;
};

// What the draft proposed while the target was busy with others.
struct PreparedDraft {
  int32_t length = 0;  // of the sequence, then
  DraftPlan plan;
  std::vector<int32_t> token_ids;
  int32_t num_drafted_kv = 0;  // of token_ids, run by the draft
};

// What the target's host memory has of a sequence that waits.
struct SwappedKv {
  std::vector<int32_t> places;  // of its pages, in order
  int32_t kv_length = 0;
};

struct SequenceLimits {
  int32_t max_tokens = 0;  // of the output
  FinishReason reason_at_max_tokens = FinishReason::kMaxTokens;
};

// Everything that is known of a request. Its tokens are the truth: KV in either worker is
// a cache of them that may be forgotten at any time and filled again.
struct Sequence {
  Sequence(SequenceId id, GenerationRequest request, GenerationSink* sink,
           const Tokenizer* tokenizer, const SequenceLimits& limits);

  // Adds a token of the output. The answer's end, if this is it.
  std::optional<OutputAssembler::End> Commit(int32_t token_id, const TokenLogprob* logprob);

  RoleState& role(Role role) { return roles[static_cast<int>(role)]; }
  const RoleState& role(Role role) const { return roles[static_cast<int>(role)]; }
  int32_t num_missing(Role r) const { return length() - role(r).kv_length; }
  int32_t length() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_output_tokens() const { return length() - num_prompt_tokens; }
  // Output tokens that may still come.
  int32_t num_remaining() const { return limits.max_tokens - num_output_tokens(); }
  // All but the last token has run: the next step makes a token.
  bool is_decoding() const { return num_missing(Role::kTarget) == 1; }
  // Whether drafts need their distributions.
  bool needs_draft_probs() const {
    return request.sampling.rule == AcceptanceRule::kRejection &&
           request.sampling.temperature > 0.0f;
  }
  bool may_use_draft() const {
    const SpeculationMode mode = request.speculation.mode;
    return mode == SpeculationMode::kAuto || mode == SpeculationMode::kDraft;
  }
  bool may_use_lookup() const {
    const SpeculationMode mode = request.speculation.mode;
    return mode == SpeculationMode::kAuto || mode == SpeculationMode::kLookup;
  }
  // Whether it keeps its place, and its pages, before `other`.
  bool ranks_before(const Sequence& other) const {
    return rank != other.rank ? rank > other.rank : id < other.id;
  }
  bool is_congested() const { return congested_since != absl::InfiniteDuration(); }
  // Of a request that asked for it.
  void Trace(StepTraceEntry entry);

  SequenceId id;
  GenerationRequest request;
  GenerationSink* sink;
  SequenceLimits limits;
  int32_t num_prompt_tokens;
  std::vector<int32_t> tokens;  // prompt and committed output
  RoleState roles[kNumRoles];
  OutputAssembler output;
  PromptLookup lookup;
  SequenceDraftState draft_state;
  std::optional<PreparedDraft> prepared;
  SwappedKv swapped;  // none while it runs
  int32_t draft_probs_slot = -1;
  bool lost_draft_pages = false;  // others needed them, ever

  // Failures since the last committed token.
  int32_t num_target_losses = 0;
  int32_t num_replays = 0;
  int32_t num_draft_failures = 0;  // ever; see kMaxDraftFailures

  // The request's priority, and one more for each `priority_aging` it has waited since it had to
  // go: whoever goes again and again ends up before those that took its pages.
  int64_t rank = 0;
  absl::Duration waiting_since;  // last time it began to
  absl::Duration waited_preempted = absl::ZeroDuration();
  bool is_running = false;                                    // in steps, else it waits
  bool is_started = false;                                    // its sink was told
  absl::Duration first_step, first_token, last_commit;        // on the engine's clock
  absl::Duration congested_since = absl::InfiniteDuration();  // its client does not read
  FinishedInfo info;                                          // counts so far
};

}  // namespace tandem::gateway
