// A request as the engine sees it, and where its output goes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/speculation/sampling_params.h"

namespace tandem::gateway {

enum class SpeculationMode : int8_t { kAuto, kOff, kDraft, kLookup };

struct SpeculationParams {
  SpeculationMode mode = SpeculationMode::kAuto;
  int32_t draft_length = 0;  // 0: the engine chooses
  bool trace = false;
};

struct StoppingParams {
  int32_t max_tokens = 0;  // 0: to the end of the context
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop = false;
};

// Validated, tokenized; ready to run.
struct GenerationRequest {
  std::string request_id;
  std::string traceparent;      // W3C, valid; empty: none
  std::vector<int32_t> prompt;  // at least 1 token
  SamplingParams sampling;
  StoppingParams stopping;
  SpeculationParams speculation;
  int32_t priority = 0;    // higher is served first, see WaitingQueue
  std::string client;      // whom it is for: API key or peer; shares are fair between clients
  absl::Duration arrival;  // on the engine's clock
  absl::Duration deadline = absl::InfiniteDuration();  // on the engine's clock
};

struct StartedInfo {
  int32_t cached_tokens = 0;
  absl::Duration queue_time;
};

// Tokens of one step that became part of the answer.
struct TokenDelta {
  std::string text;  // whole characters; may be empty while one is incomplete
  std::vector<int32_t> token_ids;
  std::vector<TokenLogprob> logprobs;  // as many as token_ids, or none
};

enum class FinishReason : int8_t { kStopToken, kStopString, kMaxTokens, kContextFull };

struct StepTraceEntry {
  std::string source;  // "draft", "lookup" or "" for a plain step
  int32_t drafted = 0;
  int32_t accepted = 0;
  std::string reason;  // why it was plain
};

struct FinishedInfo {
  FinishReason reason = FinishReason::kMaxTokens;
  std::string stop;
  int32_t stop_token_id = -1;
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t output_tokens = 0;

  absl::Duration queue, prefill, decode, time_to_first_token, total;
  absl::Duration estimated_plain_decode;  // zero: not measured yet

  int32_t num_steps = 0;
  int32_t num_draft_tokens = 0, num_accepted = 0;
  int32_t num_lookup_draft_tokens = 0, num_lookup_accepted = 0;
  std::map<std::string_view, int32_t> bypass_reasons;  // of bypass::kAll
  std::vector<StepTraceEntry> trace;
  int32_t num_preemptions = 0;
};

// Receives one request's output, on the engine's thread: calls must not block. After
// OnFinished or OnError the engine does not touch the sink again.
class GenerationSink {
 public:
  virtual ~GenerationSink() = default;
  virtual void OnStarted(const StartedInfo& info) = 0;
  virtual void OnDelta(TokenDelta delta) = 0;
  virtual void OnFinished(const FinishedInfo& info) = 0;
  virtual void OnError(const absl::Status& status) = 0;
  // True while the client's buffer is full: the sequence is left out of steps until it
  // is not, and ended with RESOURCE_EXHAUSTED when that takes too long.
  virtual bool IsCongested() const = 0;
};

}  // namespace tandem::gateway
