#include "common/chat_template/statement_parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/chat_template/limits.h"

namespace tandem::jinja {

absl::Status TokenStream::Unexpected(std::string_view what) const {
  const Token& token = current();
  switch (token.type) {
    case TokenType::kEnd:
      return SyntaxError(token.line, absl::StrFormat("%s, found the end of the template", what));
    case TokenType::kName:
    case TokenType::kOperator:
      return SyntaxError(token.line,
                         absl::StrFormat("%s, found '%s'", what, token.text.substr(0, 64)));
    case TokenType::kVariableEnd:
    case TokenType::kBlockEnd:
      return SyntaxError(token.line, absl::StrFormat("%s, found the end of the tag", what));
    default:
      return SyntaxError(token.line, absl::StrFormat("%s, found something else", what));
  }
}

absl::Status TokenStream::ExpectOperator(std::string_view text) {
  return SkipOperator(text) ? absl::OkStatus() : Unexpected(absl::StrFormat("expected '%s'", text));
}

absl::Status TokenStream::ExpectName(std::string_view text) {
  return SkipName(text) ? absl::OkStatus() : Unexpected(absl::StrFormat("expected '%s'", text));
}

absl::Status TokenStream::Expect(TokenType type, const char* what) {
  if (current().type != type) {
    return Unexpected(absl::StrCat("expected ", what));
  }
  Skip();
  return absl::OkStatus();
}

absl::StatusOr<std::string> TokenStream::TakeName() {
  std::string name = current().text;
  RETURN_IF_ERROR(Expect(TokenType::kName, "a name"));
  return name;
}

absl::StatusOr<Program> ParseProgram(std::string_view source) {
  if (source.size() > static_cast<size_t>(kMaxSourceBytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("chat template of ", source.size(), " bytes, at most ", kMaxSourceBytes));
  }
  ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  TokenStream stream(std::move(tokens));
  ASSIGN_OR_RETURN(Body body, StatementParser(stream).ParseAll());
  return Program{std::move(body)};
}

absl::Status StatementParser::ExpectTagEnd() {
  return stream_.Expect(TokenType::kBlockEnd, "'%}'");
}

absl::StatusOr<Body> StatementParser::ParseUntil(std::initializer_list<std::string_view> ends) {
  Body body;
  while (stream_.current().type != TokenType::kEnd) {
    auto statement = std::make_unique<Statement>();
    statement->line = stream_.line();
    if (stream_.current().type == TokenType::kData) {
      statement->node = DataStatement{stream_.current().text};
      stream_.Skip();
    } else if (stream_.current().type == TokenType::kVariableBegin) {
      stream_.Skip();
      ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.ParseTuple({}));
      RETURN_IF_ERROR(stream_.Expect(TokenType::kVariableEnd, "'}}'"));
      statement->node = OutputStatement{std::move(value)};
    } else {
      RETURN_IF_ERROR(stream_.Expect(TokenType::kBlockBegin, "a tag"));
      const std::string name = stream_.current().text;
      if (stream_.current().type == TokenType::kName &&
          std::find(ends.begin(), ends.end(), name) != ends.end()) {
        return body;
      }
      RETURN_IF_ERROR(stream_.Expect(TokenType::kName, "the name of a statement"));
      ASSIGN_OR_RETURN(statement->node, ParseTag(name));
    }
    body.push_back(std::move(statement));
  }
  if (ends.size() > 0) {
    return stream_.Unexpected(absl::StrFormat("expected '%s'", *(ends.end() - 1)));
  }
  return body;
}

absl::StatusOr<Body> StatementParser::ParseBlock(std::string_view end) {
  RETURN_IF_ERROR(ExpectTagEnd());
  ASSIGN_OR_RETURN(Body body, ParseUntil({end}));
  RETURN_IF_ERROR(stream_.ExpectName(end));
  RETURN_IF_ERROR(ExpectTagEnd());
  return body;
}

absl::StatusOr<Statement::Node> StatementParser::ParseTag(const std::string& name) {
  if (++nested_blocks_ > kMaxBlockDepth) {
    return SyntaxError(stream_.line(),
                       absl::StrCat("statements nest deeper than ", kMaxBlockDepth));
  }
  absl::StatusOr<Statement::Node> node = SyntaxError(
      stream_.line(), absl::StrCat("statement '", name.substr(0, 64), "' is not supported here"));
  if (name == "if") {
    node = ParseIf();
  } else if (name == "for") {
    node = ParseFor();
  } else if (name == "set") {
    node = ParseSet();
  } else if (name == "macro" && nested_loops_ == 0 && !in_macro_) {
    node = ParseMacro();
  } else if (name == "generation") {
    node = ParseGeneration();
  } else if ((name == "break" || name == "continue") && nested_loops_ > 0) {
    node =
        name == "break" ? Statement::Node(BreakStatement{}) : Statement::Node(ContinueStatement{});
    RETURN_IF_ERROR(ExpectTagEnd());
  }
  --nested_blocks_;
  return node;
}

absl::StatusOr<Statement::Node> StatementParser::ParseIf() {
  IfStatement statement;
  while (true) {
    IfStatement::Branch branch;
    ASSIGN_OR_RETURN(branch.condition, expressions_.ParseTuple({.conditional = false}));
    RETURN_IF_ERROR(ExpectTagEnd());
    ASSIGN_OR_RETURN(branch.body, ParseUntil({"elif", "else", "endif"}));
    statement.branches.push_back(std::move(branch));
    if (stream_.SkipName("elif")) {
      continue;
    }
    if (stream_.SkipName("else")) {
      ASSIGN_OR_RETURN(statement.otherwise, ParseBlock("endif"));
      return statement;
    }
    RETURN_IF_ERROR(stream_.ExpectName("endif"));
    RETURN_IF_ERROR(ExpectTagEnd());
    return statement;
  }
}

absl::StatusOr<Statement::Node> StatementParser::ParseFor() {
  ForStatement statement;
  ASSIGN_OR_RETURN(statement.target, ParseTarget(/*with_attribute=*/false));
  RETURN_IF_ERROR(stream_.ExpectName("in"));
  ASSIGN_OR_RETURN(statement.iterable, expressions_.ParseTuple({.conditional = false}));
  if (stream_.SkipName("if")) {
    ASSIGN_OR_RETURN(statement.condition, expressions_.ParseExpression());
  }
  if (stream_.IsName("recursive")) {
    return stream_.Unexpected("recursive loops are not supported");
  }
  RETURN_IF_ERROR(ExpectTagEnd());
  ++nested_loops_;
  ASSIGN_OR_RETURN(statement.body, ParseUntil({"else", "endfor"}));
  --nested_loops_;
  if (stream_.SkipName("else")) {
    ASSIGN_OR_RETURN(statement.otherwise, ParseBlock("endfor"));
    return statement;
  }
  RETURN_IF_ERROR(stream_.ExpectName("endfor"));
  RETURN_IF_ERROR(ExpectTagEnd());
  return statement;
}

absl::StatusOr<Statement::Node> StatementParser::ParseSet() {
  ASSIGN_OR_RETURN(Target target, ParseTarget(/*with_attribute=*/true));
  if (stream_.SkipOperator("=")) {
    SetStatement statement;
    statement.target = std::move(target);
    ASSIGN_OR_RETURN(statement.value, expressions_.ParseTuple({}));
    RETURN_IF_ERROR(ExpectTagEnd());
    return statement;
  }
  SetBlockStatement statement;
  statement.target = std::move(target);
  ASSIGN_OR_RETURN(statement.filter, expressions_.ParseBlockFilters());
  ASSIGN_OR_RETURN(statement.body, ParseBlock("endset"));
  return statement;
}

absl::StatusOr<Statement::Node> StatementParser::ParseMacro() {
  Macro macro;
  ASSIGN_OR_RETURN(macro.name, stream_.TakeName());
  RETURN_IF_ERROR(stream_.ExpectOperator("("));
  while (!stream_.IsOperator(")")) {
    Macro::Parameter parameter;
    ASSIGN_OR_RETURN(parameter.name, stream_.TakeName());
    if (stream_.SkipOperator("=")) {
      ASSIGN_OR_RETURN(parameter.fallback, expressions_.ParseExpression());
    } else if (!macro.parameters.empty() && macro.parameters.back().fallback != nullptr) {
      return stream_.Unexpected("expected a default, as the parameter before has one");
    }
    macro.parameters.push_back(std::move(parameter));
    if (!stream_.SkipOperator(",")) {
      break;
    }
  }
  RETURN_IF_ERROR(stream_.ExpectOperator(")"));
  in_macro_ = true;
  ASSIGN_OR_RETURN(macro.body, ParseBlock("endmacro"));
  in_macro_ = false;
  return macro;
}

absl::StatusOr<Statement::Node> StatementParser::ParseGeneration() {
  GenerationStatement statement;
  const int outer_loops = std::exchange(nested_loops_, 0);  // no break out of it
  ASSIGN_OR_RETURN(statement.body, ParseBlock("endgeneration"));
  nested_loops_ = outer_loops;
  return statement;
}

absl::StatusOr<Target> StatementParser::ParseOneTarget(bool with_attribute) {
  Target target;
  ASSIGN_OR_RETURN(target.name, stream_.TakeName());
  constexpr std::string_view kLiterals[] = {"true", "True", "false", "False", "none", "None"};
  if (std::find(std::begin(kLiterals), std::end(kLiterals), target.name) != std::end(kLiterals)) {
    return SyntaxError(stream_.line(), absl::StrCat("cannot assign to ", target.name));
  }
  if (with_attribute && stream_.SkipOperator(".")) {
    ASSIGN_OR_RETURN(target.attribute, stream_.TakeName());
  }
  return target;
}

absl::StatusOr<Target> StatementParser::ParseTarget(bool with_attribute) {
  const bool parentheses = stream_.SkipOperator("(");
  ASSIGN_OR_RETURN(Target first, ParseOneTarget(with_attribute));
  Target target;
  target.parts.push_back(std::move(first));
  bool has_comma = false;
  while (stream_.SkipOperator(",")) {
    has_comma = true;
    if (stream_.current().type != TokenType::kName || stream_.IsName("in")) {
      break;
    }
    ASSIGN_OR_RETURN(Target next, ParseOneTarget(with_attribute));
    target.parts.push_back(std::move(next));
  }
  if (parentheses) {
    RETURN_IF_ERROR(stream_.ExpectOperator(")"));
  }
  if (!has_comma) {
    Target only = std::move(target.parts[0]);
    return only;
  }
  return target;
}

}  // namespace tandem::jinja
