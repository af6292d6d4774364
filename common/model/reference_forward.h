// The specification of the forward pass: plain loops in double over dequantized weights,
// no cache, no batching.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/gguf/gguf.h"
#include "common/model/config.h"

namespace tandem {

// Logits [tokens, vocab_size] of all positions. Requires a sound model.
std::vector<double> ReferenceForward(const GgufFile& file, const ModelConfig& config,
                                     absl::Span<const int32_t> token_ids);

}  // namespace tandem
