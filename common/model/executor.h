// A loaded model that runs batched forward passes over paged KV.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/kernels/kv_layout.h"
#include "common/kernels/row_candidates.h"
#include "common/model/config.h"

namespace tandem {

// Where the KV pages are: `num_pages` pages of `page_bytes` from `base` on (host
// memory for the CPU backend, device memory for CUDA). Borrowed.
struct KvMemory {
  uint8_t* base = nullptr;
  int64_t page_bytes = 0;
  int32_t num_pages = 0;
};

// One sequence's share of a step: runs token_ids at consecutive positions from
// start_position on, writes their K and V, and makes logits for the last ones.
struct StepSequence {
  int32_t start_position = 0;
  absl::Span<const int32_t> token_ids;   // at least 1
  int32_t num_logits = 0;                // rows of logits wanted: of the last num_logits tokens
  absl::Span<const int32_t> page_table;  // page numbers, enough for all positions
  // Asked of the first row of logits; row i is asked the same for position + i.
  CandidateQuery candidates;
};

// The greatest logit of a row and its id, the smallest of equals. NaN when one logit is.
struct GreatestLogit {
  int32_t token_id = -1;
  float value = std::numeric_limits<float>::quiet_NaN();
  // Under the softmax of the whole row; NaN where a backend does not know it.
  float probability = std::numeric_limits<float>::quiet_NaN();
};

// How a sequence of Executor::Draft goes on.
struct DraftLimit {
  int32_t max_tokens = 0;  // 0: it does not draft
  // The draft ends with the first token whose row's likeliest id is less likely than this.
  float min_probability = 0.0f;
  // What a sequence that samples may choose, as in SamplingParams.
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
};

// A token of Executor::Draft. What is not finite shows in the probabilities; so does a row of
// which no id was left to choose.
struct DraftToken {
  int32_t token_id = -1;
  float logit = std::numeric_limits<float>::quiet_NaN();
  // Of the token, and of the likeliest id: under the softmax of the whole row, or, of a sequence
  // that samples, of what it may choose at its temperature.
  float probability = std::numeric_limits<float>::quiet_NaN();
  float top_probability = std::numeric_limits<float>::quiet_NaN();

  // Of a sequence that does not sample.
  static DraftToken Greedy(const GreatestLogit& greatest) {
    return {.token_id = greatest.token_id,
            .logit = greatest.value,
            .probability = greatest.probability,
            .top_probability = greatest.probability};
  }
};

// Limits of one Forward, fixed at load: its workspace is allocated once.
struct ExecutorLimits {
  int32_t max_step_tokens = 512;  // sum of token_ids over the sequences
  int32_t max_logits_rows = 128;  // sum of num_logits
  int32_t max_positions = 8192;   // of one sequence
};

// Runs one model on one device. Two executors in one process share nothing. Not
// thread-safe: one thread calls it.
//
// The logits of a row are bit-identical however the rows are grouped into steps:
// alone, in a verify of 8, in a prefill chunk or beside other sequences.
class Executor {
 public:
  virtual ~Executor() = default;

  virtual const ModelConfig& config() const = 0;
  virtual const ExecutorLimits& limits() const = 0;
  // The KV geometry this executor reads and writes, for pages of the attached pool.
  virtual const KvLayout& kv_layout() const = 0;

  // Uses the pages of `memory` from now on. INVALID_ARGUMENT when a page of it is
  // smaller than one page of kv_layout(). An executor that was loaded with 0 positions
  // per page (the draft, which does not know the target's pages before) takes the largest
  // multiple of 8 that fits, anew at each call; INVALID_ARGUMENT when not even 8 do.
  virtual absl::Status AttachKv(const KvMemory& memory) = 0;

  // Runs the step. INVALID_ARGUMENT beyond the limits, with ids out of the vocabulary
  // or page numbers out of the pool; nothing is written then. Logits of a damaged model
  // may be NaN or infinite: that is no error here, for it concerns only those rows.
  virtual absl::Status Forward(absl::Span<const StepSequence> sequences) = 0;

  // Row `row` of the last Forward's logits [vocab_size], rows in order of the
  // sequences and, within one, of its tokens. Host memory, valid until the next
  // Forward. The caller may overwrite them.
  virtual absl::Span<float> Logits(int32_t row) = 0;

  // The greatest logit of row `row` of the last Forward, for those who need no more than
  // that, where a backend has it at hand while the logits are far away; else NaN.
  virtual GreatestLogit Greatest(int32_t row) {
    (void)row;
    return {};
  }

  // What the last Forward was asked of row `row`, until the next call or Forward; no value
  // where nothing was, when the row is not finite, when its greatest logit is of an id that
  // does not count, and where a backend has the whole row at hand anyway.
  virtual std::optional<RowCandidates> Candidates(int32_t row) {
    (void)row;
    return std::nullopt;
  }

  // Whether Draft works.
  virtual bool can_draft() const { return false; }

  // Why not, on a device that should.
  virtual std::string draft_note() const { return ""; }

  // Runs the step, and goes on with a token of each sequence i that drafts, one after another
  // without the host, up to limits[i]: `drafts` are the tokens of each sequence in order; the
  // last one was not run. They are those of Greatest or, where `candidates` of a sequence ask,
  // of the greatest (logit / temperature + noise) of what truncation keeps: a guess, with noise
  // in float and truncation that may keep a few ids more. A sequence that drafts wants one row
  // of logits, the others none; page tables have room for all tokens that are run.
  // INVALID_ARGUMENT as for Forward.
  virtual absl::Status Draft(absl::Span<const StepSequence> sequences,
                             absl::Span<const DraftLimit> limits,
                             std::vector<std::vector<DraftToken>>* drafts) {
    (void)sequences, (void)limits, (void)drafts;
    return absl::UnimplementedError("this backend drafts token by token");
  }

  // Bytes held, by kind, for the memory ledger.
  virtual int64_t weight_bytes() const = 0;
  virtual int64_t workspace_bytes() const = 0;
};

}  // namespace tandem
