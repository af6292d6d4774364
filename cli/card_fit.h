// Which models fit which cards.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace tandem {

// A table in Markdown: pairs of well-known models, or the pair of these files (an empty draft:
// none), and the tokens of KV that there is room for on cards of common sizes, with the KV types
// that are the defaults. Errors as CudaWeightBytes, and of opening the files.
absl::StatusOr<std::string> CardFitTable(const std::string& target, const std::string& draft);

}  // namespace tandem
