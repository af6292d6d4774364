// One batched step as the engines of the workers take it: plain structs, no protobuf.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/speculation/sampling_params.h"

namespace tandem::worker {

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

// One sequence's entry; the fields mean what they mean in proto/tandem/{target,draft}/v1.
struct SequenceStep {
  SequenceId sequence{};
  int32_t start_position = 0;
  std::vector<int32_t> token_ids;
  int32_t first_page = 0;
  std::vector<PageEntry> pages;  // none: the page table stays as it is
  int32_t draft_probs_slot = -1;

  // Verify only.
  std::vector<int32_t> draft_token_ids;
  bool sample = false;

  // Propose only.
  int32_t num_draft_tokens = 0;
  float min_confidence = 0.0f;
};

// A page of the pool to a place in the worker's host memory, or back.
struct PageCopy {
  PageId page{};
  int32_t swap_page = 0;
  bool to_host = false;
};

struct WorkerStep {
  int64_t step_id = 0;
  int64_t pool_epoch = 0;
  std::vector<PageCopy> copies;  // of the target; first, in this order
  std::vector<OpenSequence> open;
  std::vector<SequenceStep> sequences;
  std::vector<SequenceId> release;
};

struct VerifyResult {
  SequenceId sequence{};
  absl::Status status;  // of this sequence alone
  int32_t num_accepted = 0;
  int32_t next_token_id = -1;
  std::vector<TokenLogprob> logprobs;  // num_accepted + 1, or none
};

struct VerifyStepResult {
  int64_t step_id = 0;
  absl::Status status;  // of the whole step; no results unless OK
  std::vector<VerifyResult> results;
  absl::Duration copy, forward, sample;
};

struct ProposeResult {
  SequenceId sequence{};
  absl::Status status;
  std::vector<int32_t> draft_token_ids;
  std::vector<float> draft_probs;
};

struct ProposeStepResult {
  int64_t step_id = 0;
  absl::Status status;
  std::vector<ProposeResult> results;
  absl::Duration prefill, draft;
};

}  // namespace tandem::worker
