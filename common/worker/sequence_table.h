// The sequences a worker has KV for, and the checks of what it is told about them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/kv/pool_control.h"
#include "common/speculation/sampler.h"
#include "common/worker/step.h"

namespace tandem::worker {

// One sequence. Between steps the sampler's history is what is in the KV pages.
struct Sequence {
  Sequence(SamplingParams params, int32_t vocab_size) : sampler(std::move(params), vocab_size) {}

  TokenSampler sampler;
  std::vector<int32_t> page_table;    // page numbers, as the executor takes them
  std::vector<uint32_t> generations;  // of each, when it was told to us
  absl::Status open_status;           // not OK: its sampling cannot be used
};

struct SequenceLimits {
  int32_t vocab_size = 0;
  int32_t max_positions = 0;
  int32_t positions_per_page = 0;
  int32_t max_sequences = 1024;
};

// All that comes in is checked here, before anything of it is used: the other side may
// be of another build, or broken. Not thread-safe.
class SequenceTable {
 public:
  explicit SequenceTable(const SequenceLimits& limits) : limits_(limits) {}

  // Forgets what the step releases, unknown ids ignored, then opens what it opens. A sequence
  // that is open already starts anew. Sampling or cached tokens that cannot be used are
  // remembered and reported with the sequence's steps; one for which there is no room, beyond
  // max_sequences, stays closed, and its entries of this step get RESOURCE_EXHAUSTED.
  void BeginStep(const WorkerStep& step);
  void Clear() { sequences_.clear(); }
  int32_t size() const { return static_cast<int32_t>(sequences_.size()); }

  // ABORTED when a page under positions [0, end_position) was handed on since the
  // sequence was told of it. Requires that it has the pages.
  absl::Status CheckFence(SequenceId id, const Sequence& sequence, int64_t end_position,
                          const PoolControlView& pool) const;

  // Checks an entry, rewinds the sequence to its start_position, updates its pages and
  // appends its token_ids to the history. `num_more` positions after them will be run
  // too. When it fails the sequence is as before:
  //   NOT_FOUND           it is not open
  //   RESOURCE_EXHAUSTED  it is not, because there was no room
  //   INVALID_ARGUMENT    ids, positions, pages or counts that cannot be
  //   ABORTED             start_position is beyond what was run, or a page was handed on
  // The result lives until the sequence is released.
  absl::StatusOr<Sequence*> Begin(const SequenceStep& step, int32_t num_more,
                                  const PoolControlView& pool);

 private:
  void Open(const OpenSequence& open);
  absl::Status CheckIds(SequenceId sequence, absl::Span<const int32_t> ids) const;
  absl::Status CheckCached(const OpenSequence& open) const;
  absl::Status CheckTokens(const SequenceStep& step, const Sequence& sequence,
                           int32_t num_more) const;
  absl::Status CheckPages(const SequenceStep& step, const Sequence& sequence, int64_t end_position,
                          const PoolControlView& pool) const;

  SequenceLimits limits_;
  absl::flat_hash_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  absl::flat_hash_set<SequenceId> refused_;  // by this step, for want of room
};

// INVALID_ARGUMENT for numbers no sampler can work with.
absl::Status CheckSampling(const SamplingParams& params);

}  // namespace tandem::worker
