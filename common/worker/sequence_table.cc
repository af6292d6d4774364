#include "common/worker/sequence_table.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/telemetry/log.h"
#include "common/telemetry/trace_context.h"

namespace tandem::worker {
namespace {

constexpr int32_t kMaxTopLogprobs = 64;
constexpr size_t kMaxLogitBias = 4096;
constexpr size_t kMaxEndTokens = 256;
constexpr float kMaxPenalty = 1e6f;  // products with it stay finite

bool InRange(float value, float low, float high) { return value >= low && value <= high; }

std::string Name(SequenceId sequence) {
  return absl::StrCat("sequence ", static_cast<int64_t>(sequence));
}

absl::Status Fenced(SequenceId sequence, PageId page, uint32_t told, const PoolControlView& pool) {
  return absl::AbortedError(absl::StrCat(Name(sequence), ": page ", static_cast<int32_t>(page),
                                         " is of generation ", pool.generation(page),
                                         ", the step is of ", told, ": it was handed on"));
}

}  // namespace

absl::Status CheckSampling(const SamplingParams& params) {
  const auto refuse = [](auto... parts) {
    return absl::InvalidArgumentError(absl::StrCat("sampling: ", parts...));
  };
  if (!InRange(params.temperature, 0.0f, kMaxPenalty)) {
    return refuse("temperature ", params.temperature, " is below 0 or not finite");
  }
  if (params.top_k < 0) return refuse("top_k ", params.top_k, " is negative");
  if (!(params.top_p > 0.0f && params.top_p <= 1.0f)) {
    return refuse("top_p ", params.top_p, " is not in (0, 1]");
  }
  if (!InRange(params.min_p, 0.0f, 1.0f))
    return refuse("min_p ", params.min_p, " is not in [0, 1]");
  if (!InRange(params.repetition_penalty, 1 / kMaxPenalty, kMaxPenalty)) {
    return refuse("repetition_penalty ", params.repetition_penalty, " is not above 0 and finite");
  }
  if (!InRange(params.presence_penalty, -kMaxPenalty, kMaxPenalty) ||
      !InRange(params.frequency_penalty, -kMaxPenalty, kMaxPenalty)) {
    return refuse("presence or frequency penalty is not finite");
  }
  if (params.logit_bias.size() > kMaxLogitBias || params.end_token_ids.size() > kMaxEndTokens) {
    return refuse(params.logit_bias.size(), " biases and ", params.end_token_ids.size(),
                  " end tokens; ", kMaxLogitBias, " and ", kMaxEndTokens, " are possible");
  }
  for (const auto& [id, bias] : params.logit_bias) {
    if (std::isnan(bias) || bias > kMaxPenalty) return refuse("bias of token ", id, " is ", bias);
  }
  if (params.rule != AcceptanceRule::kCoupled && params.rule != AcceptanceRule::kRejection) {
    return refuse("unknown rule ", static_cast<int32_t>(params.rule));
  }
  if (params.prompt_tokens < 0 || params.min_tokens < 0 || params.used_vocab_size < 0 ||
      params.top_logprobs < 0 || params.top_logprobs > kMaxTopLogprobs) {
    return refuse("prompt_tokens ", params.prompt_tokens, ", min_tokens ", params.min_tokens,
                  ", used_vocabulary_size ", params.used_vocab_size, ", top_logprobs ",
                  params.top_logprobs, " (at most ", kMaxTopLogprobs, ")");
  }
  return absl::OkStatus();
}

void SequenceTable::BeginStep(const WorkerStep& step) {
  for (const SequenceId sequence : step.release) sequences_.erase(sequence);
  refused_.clear();
  for (const OpenSequence& open : step.open) {
    if (size() < limits_.max_sequences || sequences_.contains(open.sequence)) {
      Open(open);
    } else {
      refused_.insert(open.sequence);
    }
  }
}

void SequenceTable::Open(const OpenSequence& open) {
  absl::Status status = CheckSampling(open.sampling);
  if (status.ok()) status = CheckCached(open);
  auto sequence = std::make_unique<Sequence>(status.ok() ? open.sampling : SamplingParams(),
                                             limits_.vocab_size);
  if (status.ok()) sequence->sampler.Append(open.cached_token_ids);
  sequence->open_status = std::move(status);
  if (const auto trace = ParseTraceparent(open.traceparent)) {
    const auto log = trace->is_sampled ? LogInfo : LogDebug;
    log("sequence opened", {{"sequence", absl::StrCat(static_cast<int64_t>(open.sequence))},
                            {"trace_id", trace->trace_id},
                            {"parent_id", trace->parent_id}});
  }
  sequences_[open.sequence] = std::move(sequence);
}

absl::StatusOr<Sequence*> SequenceTable::Begin(const SequenceStep& step, int32_t num_more,
                                               const PoolControlView& pool) {
  const auto found = sequences_.find(step.sequence);
  if (found == sequences_.end()) {
    if (refused_.contains(step.sequence)) {
      return absl::ResourceExhaustedError(absl::StrCat(Name(step.sequence),
                                                       " cannot be opened: ", size(),
                                                       " are, at most ", limits_.max_sequences));
    }
    return absl::NotFoundError(absl::StrCat(Name(step.sequence), " is not open"));
  }
  Sequence& sequence = *found->second;
  RETURN_IF_ERROR(sequence.open_status);
  RETURN_IF_ERROR(CheckTokens(step, sequence, num_more));
  const int64_t end_position =
      int64_t{step.start_position} + static_cast<int64_t>(step.token_ids.size()) + num_more;
  RETURN_IF_ERROR(CheckPages(step, sequence, end_position, pool));

  if (!step.pages.empty()) {
    sequence.page_table.resize(step.first_page);
    sequence.generations.resize(step.first_page);
    for (const PageEntry& entry : step.pages) {
      sequence.page_table.push_back(static_cast<int32_t>(entry.page));
      sequence.generations.push_back(entry.generation);
    }
  }
  sequence.sampler.Rewind(step.start_position);
  sequence.sampler.Append(step.token_ids);
  return &sequence;
}

absl::Status SequenceTable::CheckTokens(const SequenceStep& step, const Sequence& sequence,
                                        int32_t num_more) const {
  const int32_t length = sequence.sampler.length();
  if (step.start_position < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(step.sequence), " at position ", step.start_position));
  }
  if (step.start_position > length) {
    return absl::AbortedError(absl::StrCat(Name(step.sequence), " goes on at position ",
                                           step.start_position, ", but has only ", length,
                                           " tokens here: send it from an earlier position"));
  }
  const int64_t num_tokens = static_cast<int64_t>(step.token_ids.size()) + num_more;
  if (step.start_position + num_tokens > limits_.max_positions) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(step.sequence), " reaches position ", step.start_position + num_tokens,
                     ", the worker holds ", limits_.max_positions, " (--ctx)"));
  }
  RETURN_IF_ERROR(CheckIds(step.sequence, step.token_ids));
  return CheckIds(step.sequence, step.draft_token_ids);
}

absl::Status SequenceTable::CheckIds(SequenceId sequence, absl::Span<const int32_t> ids) const {
  for (const int32_t id : ids) {
    if (id >= 0 && id < limits_.vocab_size) continue;
    return absl::InvalidArgumentError(absl::StrCat(Name(sequence), " has token id ", id,
                                                   ", the vocabulary has ", limits_.vocab_size));
  }
  return absl::OkStatus();
}

absl::Status SequenceTable::CheckCached(const OpenSequence& open) const {
  const auto num_cached = static_cast<int64_t>(open.cached_token_ids.size());
  if (num_cached > limits_.max_positions) {
    return absl::InvalidArgumentError(absl::StrCat(Name(open.sequence), " has ", num_cached,
                                                   " cached tokens, the worker holds ",
                                                   limits_.max_positions, " (--ctx)"));
  }
  return CheckIds(open.sequence, open.cached_token_ids);
}

absl::Status SequenceTable::CheckPages(const SequenceStep& step, const Sequence& sequence,
                                       int64_t end_position, const PoolControlView& pool) const {
  const int64_t old_size = static_cast<int64_t>(sequence.page_table.size());
  if (!step.pages.empty() && (step.first_page < 0 || step.first_page > old_size)) {
    return absl::InvalidArgumentError(absl::StrCat(Name(step.sequence), " updates pages from ",
                                                   step.first_page, " on, it has ", old_size));
  }
  const int64_t kept = step.pages.empty() ? old_size : step.first_page;
  const int64_t num_pages = kept + static_cast<int64_t>(step.pages.size());
  const int64_t needed =
      (end_position + limits_.positions_per_page - 1) / limits_.positions_per_page;
  if (needed > num_pages) {
    return absl::InvalidArgumentError(absl::StrCat(
        Name(step.sequence), " reaches position ", end_position, " and has ", num_pages,
        " pages of ", limits_.positions_per_page, " positions: ", needed, " are needed"));
  }
  const int64_t most = (int64_t{limits_.max_positions} + limits_.positions_per_page - 1) /
                           limits_.positions_per_page +
                       1;
  if (num_pages > std::max(most, old_size)) {
    return absl::InvalidArgumentError(absl::StrCat(Name(step.sequence), " has ", num_pages,
                                                   " pages, at most ", most, " make sense"));
  }
  for (const PageEntry& entry : step.pages) {
    const auto page = static_cast<int32_t>(entry.page);
    if (page < 0 || page >= pool.geometry().num_pages) {
      return absl::InvalidArgumentError(absl::StrCat(Name(step.sequence), " is given page ", page,
                                                     ", the pool has ", pool.geometry().num_pages));
    }
  }
  // The fence: every page that will be read or written must still be this sequence's.
  for (int64_t i = 0; i < needed; ++i) {
    const bool is_kept = i < kept;
    const PageId page = is_kept ? PageId(sequence.page_table[i]) : step.pages[i - kept].page;
    const uint32_t told = is_kept ? sequence.generations[i] : step.pages[i - kept].generation;
    if (pool.generation(page) != told) return Fenced(step.sequence, page, told, pool);
  }
  return absl::OkStatus();
}

absl::Status SequenceTable::CheckFence(SequenceId id, const Sequence& sequence,
                                       int64_t end_position, const PoolControlView& pool) const {
  const int64_t needed =
      (end_position + limits_.positions_per_page - 1) / limits_.positions_per_page;
  TANDEM_CHECK(needed <= static_cast<int64_t>(sequence.page_table.size()));
  for (int64_t i = 0; i < needed; ++i) {
    const PageId page{sequence.page_table[i]};
    const uint32_t told = sequence.generations[i];
    if (pool.generation(page) != told) return Fenced(id, page, told, pool);
  }
  return absl::OkStatus();
}

}  // namespace tandem::worker
