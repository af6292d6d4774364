// Parses the statements of a template.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/chat_template/ast.h"
#include "common/chat_template/parser.h"

namespace tandem::jinja {

class StatementParser {
 public:
  explicit StatementParser(TokenStream& stream) : stream_(stream), expressions_(stream) {}

  // Up to the end of the template.
  absl::StatusOr<Body> ParseAll() { return ParseUntil({}); }

 private:
  // Statements up to a tag of one of these names, which is left in place after its
  // opening; none: up to the end of the template.
  absl::StatusOr<Body> ParseUntil(std::initializer_list<std::string_view> ends);
  // The same, and the closing tag `{% end %}` too.
  absl::StatusOr<Body> ParseBlock(std::string_view end);
  absl::StatusOr<Statement::Node> ParseTag(const std::string& name);
  absl::StatusOr<Statement::Node> ParseIf();
  absl::StatusOr<Statement::Node> ParseFor();
  absl::StatusOr<Statement::Node> ParseSet();
  absl::StatusOr<Statement::Node> ParseMacro();
  absl::StatusOr<Statement::Node> ParseGeneration();
  absl::StatusOr<Target> ParseTarget(bool with_attribute);
  absl::StatusOr<Target> ParseOneTarget(bool with_attribute);
  absl::Status ExpectTagEnd();

  TokenStream& stream_;
  ExpressionParser expressions_;
  int nested_blocks_ = 0;
  int nested_loops_ = 0;
  bool in_macro_ = false;
};

}  // namespace tandem::jinja
