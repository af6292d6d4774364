// A trimmed draft's ids: see ModelConfig::kept_ids.
#pragma once

#include <cstdint>
#include <vector>

#include "common/model/config.h"

namespace tandem {

// The logit of an id that a trimmed draft does not know: a number, for infinity would be
// taken for damage, of which nothing is left beside any other.
inline constexpr float kNeverWrittenLogit = -1e30f;

// The row of a trimmed draft's embedding for each id [vocab_size]; empty for other models.
std::vector<int32_t> RowOfId(const ModelConfig& config);

}  // namespace tandem
