// What every executor checks before it runs a step.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/executor.h"

namespace tandem {

// INVALID_ARGUMENT naming what is beyond the limits, the pool or the vocabulary;
// FAILED_PRECONDITION without a pool.
absl::Status CheckStep(absl::Span<const StepSequence> sequences, const ExecutorLimits& limits,
                       const ModelConfig& config, const KvLayout& layout, const KvMemory& memory);

// INVALID_ARGUMENT naming what a Draft of a step that passed CheckStep asks for too much:
// `max_tokens` of a sequence at most.
absl::Status CheckDrafts(absl::Span<const StepSequence> sequences,
                         absl::Span<const DraftLimit> limits, int32_t max_tokens,
                         const ExecutorLimits& executor_limits, const KvLayout& layout);

// The layout that fits `memory`: `layout`, or, when `page_positions` is 0, with as many
// positions as fit a page, a multiple of `granule`. INVALID_ARGUMENT when a page is too
// small.
absl::StatusOr<KvLayout> FitLayout(KvLayout layout, int32_t page_positions, int32_t granule,
                                   const KvMemory& memory, const ModelConfig& config);

// More than any page that is worth having; keeps the products small.
inline constexpr int64_t kMaxPagePositions = 1 << 20;

}  // namespace tandem
