// Cuts a template into text, tags and the tokens in tags, with jinja2's rules for
// whitespace around tags (trim_blocks and lstrip_blocks on).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tandem::jinja {

enum class TokenType {
  kData,  // text between tags
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kReal,
  kOperator,
  kEnd,  // of the template; always the last token
};

struct Token {
  TokenType type = TokenType::kEnd;
  std::string text;  // data, name, operator, or the string itself
  int64_t integer = 0;
  double real = 0;
  int line = 1;
};

// INVALID_ARGUMENT with the line.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

// INVALID_ARGUMENT "chat template line <line>: <what>".
absl::Status SyntaxError(int line, std::string_view what);

}  // namespace tandem::jinja
