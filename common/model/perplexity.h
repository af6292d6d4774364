// How well a model predicts a text.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/executor.h"

namespace tandem {

struct PerplexityResult {
  double perplexity = 0.0;
  double standard_error = 0.0;  // of the perplexity
  int64_t num_scored = 0;       // tokens
  int32_t num_windows = 0;
};

struct PerplexityOptions {
  int32_t window_tokens = 512;
  // Put first in each window in place of its first token; -1: nothing is. llama.cpp does so
  // when tokenizer.ggml.add_bos_token says so, and then also puts it before the whole text.
  int32_t bos_id = -1;
};

// Cuts the text into windows, drops the rest, and scores the second half of each: what
// llama.cpp's perplexity tool does, so that the figures compare. Attaches KV memory of its
// own. INVALID_ARGUMENT when the text is shorter than two windows, or a window than 8 tokens
// or longer than the executor's positions; INTERNAL when the model's logits are not finite.
// `progress` is told the windows done and their number.
absl::StatusOr<PerplexityResult> MeasurePerplexity(
    Executor& executor, absl::Span<const int32_t> token_ids, const PerplexityOptions& options,
    const std::function<void(int32_t done, int32_t total)>& progress);

}  // namespace tandem
