// Limits that arrays of more than one layer are laid out by.
#pragma once

#include <cstdint>

namespace tandem {

// Draft tokens of one sequence in a step.
inline constexpr int32_t kMaxDraftLength = 16;

}  // namespace tandem
