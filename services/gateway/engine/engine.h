// The round loop: schedules sequences, asks the draft to propose and the target to
// verify, commits, and streams. A state machine on a given clock: it starts no thread,
// reads no real time and speaks to workers through links, so that it can be simulated.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "services/gateway/engine/engine_observer.h"
#include "services/gateway/engine/pipeline_chooser.h"
#include "services/gateway/engine/request.h"
#include "services/gateway/engine/worker_link.h"

namespace tandem {
class Tokenizer;
}

namespace tandem::gateway {

struct EngineOptions {
  int32_t max_running = 16;   // sequences in steps at once
  int32_t max_waiting = 256;  // beyond: RESOURCE_EXHAUSTED at once
  int32_t max_context = 0;    // prompt + output; 0: the target's context
  int32_t max_draft_length = 16;
  int32_t prefill_chunk_tokens = 256;  // of all sequences in one step beside decodes, at most
  // How many times longer a step may take because of a prompt in it; see PrefillPacer.
  double prefill_stretch = 1.5;
  // Waiting this long is worth one of priority.
  absl::Duration priority_aging = absl::Seconds(5);
  absl::Duration step_timeout = absl::Seconds(60);
  absl::Duration congestion_timeout = absl::Seconds(30);
  // How long requests wait for a target that is being restarted before UNAVAILABLE.
  absl::Duration target_wait = absl::Seconds(60);
  // Keeps the pages of prompts and answers for requests that begin with the same tokens.
  bool prefix_cache = true;
  // Rising ids that the draft means otherwise than the target: a draft ends before them.
  std::vector<int32_t> never_drafted = {};
  Pipelining pipelining = Pipelining::kOff;
};

// Not thread-safe: one thread calls Submit, Cancel and RunOnce (the service hands
// requests over through a queue).
class Engine {
 public:
  // All pointers are borrowed and outlive the engine. `draft` may be null.
  Engine(const EngineOptions& options, const Clock* clock, const Tokenizer* tokenizer,
         TargetLink* target, DraftLink* draft, PageFence* fence, EngineObserver* observer);
  ~Engine();

  // Queues a request. `sink` is borrowed until its OnFinished or OnError. Errors, after
  // which the sink is not used: RESOURCE_EXHAUSTED when the queue is full,
  // INVALID_ARGUMENT when it could never fit (prompt against context and pool, with the
  // numbers).
  absl::StatusOr<SequenceId> Submit(GenerationRequest request, GenerationSink* sink);

  // Ends a request with `reason`, CANCELLED or DEADLINE_EXCEEDED (to sink->OnError), and frees
  // its pages before the next step. Unknown ids are ignored: it may just have finished.
  void Cancel(SequenceId sequence, const absl::Status& reason);

  // Runs one round if there is anything to do. False when there is not: the caller
  // waits for a request, at most a short time (deadlines, workers coming back).
  bool RunOnce();

  // INTERNAL when pages and references do not add up: a bug of the engine. For simulations;
  // walks over all pages.
  absl::Status CheckBooks() const;

  int32_t num_running() const;
  int32_t num_waiting() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem::gateway
