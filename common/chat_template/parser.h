// Builds the program of a template, by jinja2's grammar. Not supported, and refused:
// `call`, `filter`, `with`, `autoescape`, `block`, `extends`, `include`, `import`,
// recursive loops, `*args` and `**kwargs`, and macros inside loops or other macros.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/chat_template/ast.h"
#include "common/chat_template/lexer.h"

namespace tandem::jinja {

// INVALID_ARGUMENT with the line.
absl::StatusOr<Program> ParseProgram(std::string_view source);

// The tokens, and a place in them.
class TokenStream {
 public:
  // Requires that the last token be kEnd.
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& following() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  int line() const { return current().line; }
  bool IsOperator(std::string_view text) const {
    return current().type == TokenType::kOperator && current().text == text;
  }
  bool IsName(std::string_view text) const {
    return current().type == TokenType::kName && current().text == text;
  }
  // Stays on the last token.
  void Skip() { at_ = std::min(at_ + 1, tokens_.size() - 1); }
  bool SkipOperator(std::string_view text) { return IsOperator(text) && (Skip(), true); }
  bool SkipName(std::string_view text) { return IsName(text) && (Skip(), true); }

  // INVALID_ARGUMENT when something else is there.
  absl::Status ExpectOperator(std::string_view text);
  absl::Status ExpectName(std::string_view text);
  absl::Status Expect(TokenType type, const char* what);
  absl::StatusOr<std::string> TakeName();
  // "line n: <what>, found <token>".
  absl::Status Unexpected(std::string_view what) const;

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

// Parses expressions where a stream stands.
class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& stream) : stream_(stream) {}

  absl::StatusOr<ExpressionPtr> ParseExpression();
  // With or without `a if b else c`, which would take the `if` of a loop.
  struct TupleOptions {
    bool conditional = true;
    bool in_parentheses = false;  // may be empty
  };
  absl::StatusOr<ExpressionPtr> ParseTuple(TupleOptions options);
  // `| name(arguments)` and so on, as after `set x`; nullptr when none is there.
  absl::StatusOr<ExpressionPtr> ParseBlockFilters();

 private:
  absl::StatusOr<ExpressionPtr> ParseOr();
  absl::StatusOr<ExpressionPtr> ParseAnd();
  absl::StatusOr<ExpressionPtr> ParseNot();
  absl::StatusOr<ExpressionPtr> ParseCompare();
  absl::StatusOr<ExpressionPtr> ParseSum();
  absl::StatusOr<ExpressionPtr> ParseConcat();
  absl::StatusOr<ExpressionPtr> ParseProduct();
  absl::StatusOr<ExpressionPtr> ParsePower();
  absl::StatusOr<ExpressionPtr> ParseUnary(bool with_filter);
  absl::StatusOr<ExpressionPtr> ParsePrimary();
  absl::StatusOr<ExpressionPtr> ParseList();
  absl::StatusOr<ExpressionPtr> ParseDict();
  absl::StatusOr<ExpressionPtr> ParsePostfix(ExpressionPtr expression);
  absl::StatusOr<ExpressionPtr> ParseSubscript(ExpressionPtr object);
  absl::StatusOr<ExpressionPtr> ParseFilters(ExpressionPtr expression);
  absl::StatusOr<ExpressionPtr> ParseFilter(ExpressionPtr input);
  absl::StatusOr<ExpressionPtr> ParseTest(ExpressionPtr input);
  absl::StatusOr<CallArguments> ParseArguments();
  using Part = absl::StatusOr<ExpressionPtr> (ExpressionParser::*)();
  absl::StatusOr<ExpressionPtr> ParseLogic(const char* name, Part part);

  // The depth of the deepest child plus one; INVALID_ARGUMENT past the limit.
  absl::StatusOr<ExpressionPtr> Make(int line, Expression::Node node,
                                     std::initializer_list<const Expression*> children);
  absl::StatusOr<ExpressionPtr> Make(int line, Expression::Node node, int depth_of_children);

  TokenStream& stream_;
  int nested_ = 0;  // parsers of expressions that wait for this one
};

}  // namespace tandem::jinja
