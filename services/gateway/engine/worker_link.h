// What the engine asks of the two workers. Real links speak gRPC or a shared-memory
// ring (services/gateway/links); tests use fakes. Plain structs, no protobuf.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/speculation/sampling_params.h"

namespace tandem::gateway {

// One entry of a page table, with the generation that makes stale writers notice.
struct PageEntry {
  PageId page{};
  uint32_t generation = 0;
};

struct OpenSequence {
  SequenceId sequence{};
  SamplingParams sampling;
  std::vector<int32_t> cached_token_ids;  // at its start; in pages already
  std::string traceparent;                // W3C, of the request; empty: none
};

struct SequenceStep {
  SequenceId sequence{};
  int32_t start_position = 0;
  std::vector<int32_t> token_ids;
  int32_t first_page = 0;  // the page table from this entry on:
  std::vector<PageEntry> pages;
  int32_t draft_probs_slot = -1;  // REJECTION: where the draft's distributions are

  // Verify only.
  std::vector<int32_t> draft_token_ids;
  bool sample = false;

  // Propose only.
  int32_t num_draft_tokens = 0;
  float min_confidence = 0.0f;
};

// A page of the pool to a place in the target's host memory, or back.
struct PageCopy {
  PageId page{};
  int32_t swap_page = 0;
  bool to_host = false;
};

struct WorkerStep {
  std::vector<PageCopy> copies;  // of the target; first, in this order
  std::vector<OpenSequence> open;
  std::vector<SequenceStep> sequences;
  std::vector<SequenceId> release;
};

struct VerifyResult {
  absl::Status status;  // of this sequence alone
  int32_t num_accepted = 0;
  int32_t next_token_id = -1;
  std::vector<TokenLogprob> logprobs;  // num_accepted + 1, or none
};

struct ProposeResult {
  absl::Status status;
  std::vector<int32_t> draft_token_ids;
  std::vector<float> draft_probs;
};

struct VerifyStepResult {
  std::vector<VerifyResult> results;     // in the order of the step's sequences
  absl::Duration copy, forward, sample;  // as the worker measured them
};

struct ProposeStepResult {
  std::vector<ProposeResult> results;
  absl::Duration prefill, draft;
};

// What the engine needs to know of a connected worker.
struct WorkerFacts {
  int64_t incarnation = 0;  // another value: all its state is gone
  int32_t vocab_size = 0;
  int32_t context_length = 0;
  int32_t positions_per_page = 0;
  int32_t max_step_tokens = 0;
  int32_t max_logits_rows = 0;
  int32_t num_swap_pages = 0;  // the target's places for pages in host memory
  int32_t max_sequences = 0;   // open at once; 0: the worker does not say
};

// One worker, one step in flight at a time. Used by the engine's thread only.
template <class StepResult>
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;

  // The worker's facts while it is usable, UNAVAILABLE while it is down, and
  // FAILED_PRECONDITION while another model is in its place. Never blocks:
  // links connect, re-attach and exchange facts on their own thread. A change of
  // incarnation between two calls means a restart.
  virtual absl::StatusOr<WorkerFacts> Facts() = 0;

  // Sends a step. Requires that the last one was awaited.
  virtual void Send(const WorkerStep& step) = 0;

  // Its result; UNAVAILABLE when the worker died, DEADLINE_EXCEEDED when it did not
  // answer within `timeout` (the link then drops the connection: Facts turns
  // UNAVAILABLE until the worker is back), another error when the whole step was
  // refused.
  virtual absl::StatusOr<StepResult> Await(absl::Duration timeout) = 0;
};

using TargetLink = WorkerLink<VerifyStepResult>;
using DraftLink = WorkerLink<ProposeStepResult>;

// The pool as the engine gets it from the target. `epoch` changes with each pool.
struct PoolFacts {
  int64_t epoch = 0;
  int32_t num_pages = 0;
  int32_t num_draft_probs_slots = 0;
};

// Publishes generations where both workers see them before they touch a page.
class PageFence {
 public:
  virtual ~PageFence() = default;
  // The pool behind the current target; UNAVAILABLE while there is none.
  virtual absl::StatusOr<PoolFacts> Facts() = 0;
  virtual void SetGeneration(PageId page, uint32_t generation) = 0;
};

}  // namespace tandem::gateway
