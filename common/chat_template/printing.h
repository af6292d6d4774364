// Values as text: str(), repr() and JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/chat_template/runtime.h"
#include "common/chat_template/value.h"

namespace tandem::jinja {

// As Python's repr(): the shortest digits that read back.
std::string FormatReal(double number);

// Adds str(value) to `out`, within the limit on strings. FAILED_PRECONDITION for
// functions, namespaces and generators, which print as memory addresses in Python.
absl::Status AppendString(Runtime& runtime, const Value& value, Text& out);
absl::Status AppendRepr(Runtime& runtime, const Value& value, Text& out);
absl::StatusOr<Text> ToText(Runtime& runtime, const Value& value);

// As json.dumps(); a text that holds content is content as a whole, as it is quoted.
struct JsonOptions {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // of one level; on one line without
  std::string item_separator;         // empty for json.dumps's own choice
  std::string key_separator;
};
absl::Status AppendJson(Runtime& runtime, const Value& value, const JsonOptions& options,
                        Text& out);

}  // namespace tandem::jinja
