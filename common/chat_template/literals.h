// Numbers and strings as templates write them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace tandem::jinja {

struct NumberLiteral {
  bool is_real = false;
  int64_t integer = 0;
  double real = 0;
  size_t num_bytes = 0;
};

// The number that `text` begins with; requires a digit there. `after_dot`: as in
// `items.0.5`, where no real number may begin. INVALID_ARGUMENT beyond 64 bits.
absl::StatusOr<NumberLiteral> ReadNumber(std::string_view text, bool after_dot, int line);

// What stands between the quotes of a string, with Python's escapes resolved.
// INVALID_ARGUMENT for a broken escape, a lone surrogate or \N.
absl::StatusOr<std::string> Unescape(std::string_view body, int line);

}  // namespace tandem::jinja
