#include "common/model/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"

namespace tandem {
namespace {

double NegativeLogProb(absl::Span<const float> logits, int32_t id) {
  const float max = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(double{logit} - max);
  return std::log(sum) + max - logits[id];
}

// Runs a window and adds the losses of its tokens from `first_scored` on.
absl::Status ScoreWindow(Executor& executor, absl::Span<const int32_t> window, int32_t first_scored,
                         absl::Span<const int32_t> page_table, std::vector<double>& losses) {
  const auto num_tokens = static_cast<int32_t>(window.size());
  const int32_t chunk =
      std::min(executor.limits().max_step_tokens, executor.limits().max_logits_rows);
  for (int32_t start = 0; start + 1 < num_tokens; start += chunk) {
    // The last token predicts nothing that is scored.
    const int32_t count = std::min(chunk, num_tokens - 1 - start);
    // The logits at position p predict token p + 1.
    const int32_t num_logits = std::clamp(start + count + 1 - first_scored, 0, count);
    const StepSequence step = {
        .start_position = start,
        .token_ids = window.subspan(static_cast<size_t>(start), static_cast<size_t>(count)),
        .num_logits = num_logits,
        .page_table = page_table};
    RETURN_IF_ERROR(executor.Forward({&step, 1}));
    for (int32_t row = 0; row < num_logits; ++row) {
      const int32_t position = start + count - num_logits + row;
      losses.push_back(NegativeLogProb(executor.Logits(row), window[position + 1]));
      if (!std::isfinite(losses.back())) {
        return absl::InternalError(
            absl::StrFormat("the logits of position %d are not finite: the model's weights may be "
                            "damaged",
                            position));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PerplexityResult> MeasurePerplexity(
    Executor& executor, absl::Span<const int32_t> token_ids, const PerplexityOptions& options,
    const std::function<void(int32_t done, int32_t total)>& progress) {
  const int32_t window_tokens = options.window_tokens;
  const auto num_tokens = static_cast<int64_t>(token_ids.size());
  if (window_tokens < 8 || num_tokens < 2 * int64_t{window_tokens}) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "a text of %d tokens in windows of %d: it needs at least two windows of at least 8",
        num_tokens, window_tokens));
  }
  if (window_tokens > executor.limits().max_positions) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "windows of %d tokens: at most %d", window_tokens, executor.limits().max_positions));
  }
  const KvLayout& layout = executor.kv_layout();
  const int32_t page_positions = layout.page_positions > 0 ? layout.page_positions : 32;
  const int64_t page_bytes = layout.position_bytes() * page_positions;
  const int32_t num_pages = (window_tokens + page_positions - 1) / page_positions;
  std::vector<uint8_t> pages(static_cast<size_t>(page_bytes * num_pages));
  RETURN_IF_ERROR(
      executor.AttachKv({.base = pages.data(), .page_bytes = page_bytes, .num_pages = num_pages}));
  std::vector<int32_t> page_table(static_cast<size_t>(num_pages));
  std::iota(page_table.begin(), page_table.end(), 0);

  PerplexityResult result;
  result.num_windows = static_cast<int32_t>(num_tokens / window_tokens);
  std::vector<double> losses;
  for (int32_t i = 0; i < result.num_windows; ++i) {
    const auto from = token_ids.begin() + int64_t{i} * window_tokens;
    std::vector<int32_t> window(from, from + window_tokens);
    if (options.bos_id >= 0) window[0] = options.bos_id;
    // llama.cpp scores the tokens after position window / 2.
    RETURN_IF_ERROR(ScoreWindow(executor, window, window_tokens / 2 + 1, page_table, losses));
    if (progress) progress(i + 1, result.num_windows);
  }
  result.num_scored = static_cast<int64_t>(losses.size());
  const auto count = static_cast<double>(losses.size());
  const double mean = std::accumulate(losses.begin(), losses.end(), 0.0) / count;
  double variance = 0.0;
  for (const double loss : losses) variance += (loss - mean) * (loss - mean) / count;
  result.perplexity = std::exp(mean);
  result.standard_error = result.perplexity * std::sqrt(variance / (count - 1));
  return result;
}

}  // namespace tandem
