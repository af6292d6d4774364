#include "common/model/step_checks.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"

namespace tandem {
namespace {

absl::Status CheckSequence(const StepSequence& sequence, const ExecutorLimits& limits,
                           const ModelConfig& config, const KvLayout& layout,
                           const KvMemory& memory) {
  const auto num_tokens = static_cast<int64_t>(sequence.token_ids.size());
  if (num_tokens < 1 || sequence.num_logits < 0 || sequence.num_logits > num_tokens) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d tokens with %d rows of logits", num_tokens, sequence.num_logits));
  }
  const int64_t end = sequence.start_position + num_tokens;
  if (sequence.start_position < 0 || end > limits.max_positions) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "positions %d to %d; the limit is %d", sequence.start_position, end, limits.max_positions));
  }
  const int64_t num_pages = (end + layout.page_positions - 1) / layout.page_positions;
  if (static_cast<int64_t>(sequence.page_table.size()) < num_pages) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d positions need %d pages, the table has %d", end, num_pages,
                        sequence.page_table.size()));
  }
  for (const int32_t page : sequence.page_table.subspan(0, static_cast<size_t>(num_pages))) {
    if (page < 0 || page >= memory.num_pages) {
      return absl::InvalidArgumentError(
          absl::StrFormat("page %d; the pool has %d", page, memory.num_pages));
    }
  }
  for (const int32_t id : sequence.token_ids) {
    if (id < 0 || id >= config.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrFormat("token id %d; the vocabulary has %d", id, config.vocab_size));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<KvLayout> FitLayout(KvLayout layout, int32_t page_positions, int32_t granule,
                                   const KvMemory& memory, const ModelConfig& config) {
  if (page_positions == 0) {
    const int64_t fitting = memory.page_bytes / layout.position_bytes();
    layout.page_positions =
        static_cast<int32_t>(std::min(fitting, kMaxPagePositions) / granule * granule);
  }
  if (memory.base == nullptr || memory.num_pages < 1) {
    return absl::InvalidArgumentError("a KV pool without pages");
  }
  if (layout.page_positions == 0 || layout.page_bytes() > memory.page_bytes) {
    const int32_t least = std::max(layout.page_positions, granule);
    return absl::InvalidArgumentError(absl::StrFormat(
        "a page of the pool has %d bytes; %s needs %d for %d positions: use larger pages",
        memory.page_bytes, config.name, layout.position_bytes() * least, least));
  }
  return layout;
}

absl::Status CheckStep(absl::Span<const StepSequence> sequences, const ExecutorLimits& limits,
                       const ModelConfig& config, const KvLayout& layout, const KvMemory& memory) {
  if (memory.base == nullptr) return absl::FailedPreconditionError("no KV pool is attached");
  int64_t num_tokens = 0;
  int64_t num_logits = 0;
  for (const StepSequence& sequence : sequences) {
    RETURN_IF_ERROR(CheckSequence(sequence, limits, config, layout, memory));
    num_tokens += static_cast<int64_t>(sequence.token_ids.size());
    num_logits += sequence.num_logits;
  }
  if (num_tokens > limits.max_step_tokens || num_logits > limits.max_logits_rows) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a step of %d tokens and %d rows of logits; the limits are %d and %d",
                        num_tokens, num_logits, limits.max_step_tokens, limits.max_logits_rows));
  }
  return absl::OkStatus();
}

absl::Status CheckDrafts(absl::Span<const StepSequence> sequences,
                         absl::Span<const DraftLimit> limits, int32_t max_tokens,
                         const ExecutorLimits& executor_limits, const KvLayout& layout) {
  if (limits.size() != sequences.size()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d limits for %d sequences", limits.size(), sequences.size()));
  }
  for (size_t i = 0; i < sequences.size(); ++i) {
    const StepSequence& sequence = sequences[i];
    const int32_t wanted = limits[i].max_tokens;
    if (wanted < 0 || wanted > max_tokens || sequence.num_logits != (wanted > 0 ? 1 : 0)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("a draft of %d tokens, at most %d, with %d rows of logits", wanted,
                          max_tokens, sequence.num_logits));
    }
    // The last token is not run.
    const int64_t end = int64_t{sequence.start_position} +
                        static_cast<int64_t>(sequence.token_ids.size()) + std::max(0, wanted - 1);
    const int64_t room =
        std::min<int64_t>(executor_limits.max_positions,
                          static_cast<int64_t>(sequence.page_table.size()) * layout.page_positions);
    if (end > room) {
      return absl::InvalidArgumentError(
          absl::StrFormat("a draft up to position %d, there is room for %d", end, room));
    }
  }
  return absl::OkStatus();
}

}  // namespace tandem
