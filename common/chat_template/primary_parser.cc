// Literals, and what may follow a value: items, calls, filters and tests.
#include <algorithm>

#include "common/base/status_macros.h"
#include "common/chat_template/parser.h"

namespace tandem::jinja {
namespace {

int DepthOf(const std::vector<ExpressionPtr>& expressions) {
  int depth = 0;
  for (const ExpressionPtr& expression : expressions) {
    depth = std::max(depth, expression->depth);
  }
  return depth;
}

int DepthOf(const CallArguments& arguments) {
  int depth = DepthOf(arguments.positional);
  for (const auto& [name, value] : arguments.named) {
    depth = std::max(depth, value->depth);
  }
  return depth;
}

}  // namespace

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePrimary() {
  const Token token = stream_.current();
  if (token.type == TokenType::kName) {
    stream_.Skip();
    const std::string& name = token.text;
    if (name == "true" || name == "True" || name == "false" || name == "False") {
      return Make(token.line, LiteralExpression{Value(name[0] == 't' || name[0] == 'T')}, 0);
    }
    if (name == "none" || name == "None") {
      return Make(token.line, LiteralExpression{}, 0);
    }
    return Make(token.line, NameExpression{name}, 0);
  }
  if (token.type == TokenType::kString) {
    std::string text;
    for (; stream_.current().type == TokenType::kString; stream_.Skip()) {
      text += stream_.current().text;
    }
    return Make(token.line, LiteralExpression{Value::OfText(text)}, 0);
  }
  if (token.type == TokenType::kInteger || token.type == TokenType::kReal) {
    stream_.Skip();
    return Make(token.line,
                LiteralExpression{token.type == TokenType::kReal ? Value(token.real)
                                                                 : Value(token.integer)},
                0);
  }
  if (stream_.SkipOperator("(")) {
    ASSIGN_OR_RETURN(ExpressionPtr tuple, ParseTuple({.in_parentheses = true}));
    RETURN_IF_ERROR(stream_.ExpectOperator(")"));
    return tuple;
  }
  if (stream_.IsOperator("[")) {
    return ParseList();
  }
  if (stream_.IsOperator("{")) {
    return ParseDict();
  }
  return stream_.Unexpected("expected an expression");
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTuple(TupleOptions options) {
  const int line = stream_.line();
  ListExpression tuple{.items = {}, .flavor = List::Flavor::kTuple};
  bool has_comma = false;
  while (true) {
    const TokenType type = stream_.current().type;
    if (type == TokenType::kVariableEnd || type == TokenType::kBlockEnd ||
        stream_.IsOperator(")")) {
      break;
    }
    ASSIGN_OR_RETURN(ExpressionPtr item, options.conditional ? ParseExpression() : ParseOr());
    tuple.items.push_back(std::move(item));
    if (!stream_.SkipOperator(",")) {
      break;
    }
    has_comma = true;
  }
  if (!has_comma && tuple.items.size() == 1) {
    return std::move(tuple.items[0]);
  }
  if (tuple.items.empty() && !options.in_parentheses) {
    return stream_.Unexpected("expected an expression");
  }
  const int depth = DepthOf(tuple.items);
  return Make(line, std::move(tuple), depth);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseList() {
  const int line = stream_.line();
  RETURN_IF_ERROR(stream_.ExpectOperator("["));
  ListExpression list;
  while (!stream_.IsOperator("]")) {
    ASSIGN_OR_RETURN(ExpressionPtr item, ParseExpression());
    list.items.push_back(std::move(item));
    if (!stream_.SkipOperator(",")) {
      break;
    }
  }
  RETURN_IF_ERROR(stream_.ExpectOperator("]"));
  const int depth = DepthOf(list.items);
  return Make(line, std::move(list), depth);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseDict() {
  const int line = stream_.line();
  RETURN_IF_ERROR(stream_.ExpectOperator("{"));
  DictExpression dict;
  int depth = 0;
  while (!stream_.IsOperator("}")) {
    ASSIGN_OR_RETURN(ExpressionPtr key, ParseExpression());
    RETURN_IF_ERROR(stream_.ExpectOperator(":"));
    ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    depth = std::max({depth, key->depth, value->depth});
    dict.items.emplace_back(std::move(key), std::move(value));
    if (!stream_.SkipOperator(",")) {
      break;
    }
  }
  RETURN_IF_ERROR(stream_.ExpectOperator("}"));
  return Make(line, std::move(dict), depth);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePostfix(ExpressionPtr expression) {
  while (true) {
    const int line = stream_.line();
    if (stream_.IsOperator(".") || stream_.IsOperator("[")) {
      ASSIGN_OR_RETURN(expression, ParseSubscript(std::move(expression)));
    } else if (stream_.IsOperator("(")) {
      ASSIGN_OR_RETURN(CallArguments arguments, ParseArguments());
      const int depth = std::max(expression->depth, DepthOf(arguments));
      ASSIGN_OR_RETURN(
          expression,
          Make(line, CallExpression{std::move(expression), std::move(arguments)}, depth));
    } else {
      return expression;
    }
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseSubscript(ExpressionPtr object) {
  const int line = stream_.line();
  int depth = object->depth;
  if (stream_.SkipOperator(".")) {
    const Token token = stream_.current();
    if (token.type == TokenType::kInteger) {
      stream_.Skip();
      ASSIGN_OR_RETURN(ExpressionPtr index, Make(line, LiteralExpression{Value(token.integer)}, 0));
      return Make(line, ItemExpression{std::move(object), std::move(index)}, depth);
    }
    ASSIGN_OR_RETURN(std::string name, stream_.TakeName());
    return Make(line, AttributeExpression{std::move(object), std::move(name)}, depth);
  }
  RETURN_IF_ERROR(stream_.ExpectOperator("["));
  ExpressionPtr bounds[3];
  int num_colons = 0;
  while (!stream_.IsOperator("]")) {
    if (num_colons < 2 && stream_.SkipOperator(":")) {
      ++num_colons;
      continue;
    }
    if (bounds[num_colons] != nullptr) {
      return stream_.Unexpected("expected ']'");
    }
    ASSIGN_OR_RETURN(bounds[num_colons], ParseExpression());
    depth = std::max(depth, bounds[num_colons]->depth);
  }
  stream_.Skip();
  if (num_colons > 0) {
    return Make(line,
                SliceExpression{std::move(object), std::move(bounds[0]), std::move(bounds[1]),
                                std::move(bounds[2])},
                depth);
  }
  if (bounds[0] == nullptr) {
    return SyntaxError(line, "expected an index in '[]'");
  }
  return Make(line, ItemExpression{std::move(object), std::move(bounds[0])}, depth);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFilters(ExpressionPtr expression) {
  while (true) {
    if (stream_.IsOperator("|")) {
      ASSIGN_OR_RETURN(expression, ParseFilter(std::move(expression)));
    } else if (stream_.IsName("is")) {
      ASSIGN_OR_RETURN(expression, ParseTest(std::move(expression)));
    } else if (stream_.IsOperator("(")) {
      ASSIGN_OR_RETURN(expression, ParsePostfix(std::move(expression)));
    } else {
      return expression;
    }
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseBlockFilters() {
  ExpressionPtr filter;
  while (stream_.IsOperator("|")) {
    ASSIGN_OR_RETURN(filter, ParseFilter(std::move(filter)));
  }
  return filter;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFilter(ExpressionPtr input) {
  const int line = stream_.line();
  RETURN_IF_ERROR(stream_.ExpectOperator("|"));
  ASSIGN_OR_RETURN(std::string name, stream_.TakeName());
  CallArguments arguments;
  if (stream_.IsOperator("(")) {
    ASSIGN_OR_RETURN(arguments, ParseArguments());
  }
  const int depth = std::max(input ? input->depth : 0, DepthOf(arguments));
  return Make(line, FilterExpression{std::move(input), std::move(name), std::move(arguments)},
              depth);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTest(ExpressionPtr input) {
  const int line = stream_.line();
  RETURN_IF_ERROR(stream_.ExpectName("is"));
  const bool negated = stream_.SkipName("not");
  ASSIGN_OR_RETURN(std::string name, stream_.TakeName());
  CallArguments arguments;
  const TokenType type = stream_.current().type;
  if (stream_.IsOperator("(")) {
    ASSIGN_OR_RETURN(arguments, ParseArguments());
  } else if ((type == TokenType::kName || type == TokenType::kString ||
              type == TokenType::kInteger || type == TokenType::kReal || stream_.IsOperator("[") ||
              stream_.IsOperator("{")) &&
             !stream_.IsName("else") && !stream_.IsName("or") && !stream_.IsName("and")) {
    if (stream_.IsName("is")) {
      return stream_.Unexpected("tests cannot be chained");
    }
    ASSIGN_OR_RETURN(ExpressionPtr argument, ParsePrimary());
    ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    arguments.positional.push_back(std::move(argument));
  }
  const int depth = std::max(input->depth, DepthOf(arguments));
  ASSIGN_OR_RETURN(
      ExpressionPtr test,
      Make(line, TestExpression{std::move(input), std::move(name), std::move(arguments)}, depth));
  if (!negated) {
    return test;
  }
  return Make(line, UnaryExpression{UnaryExpression::Operator::kNot, std::move(test)}, depth + 1);
}

absl::StatusOr<CallArguments> ExpressionParser::ParseArguments() {
  RETURN_IF_ERROR(stream_.ExpectOperator("("));
  CallArguments arguments;
  while (!stream_.IsOperator(")")) {
    if (stream_.IsOperator("*") || stream_.IsOperator("**")) {
      return stream_.Unexpected("'*' before an argument is not supported");
    }
    const bool named = stream_.current().type == TokenType::kName &&
                       stream_.following().type == TokenType::kOperator &&
                       stream_.following().text == "=";
    std::string name = stream_.current().text;
    if (named) {
      stream_.Skip();
      stream_.Skip();
    } else if (!arguments.named.empty()) {
      return stream_.Unexpected("expected a named argument after a named argument");
    }
    ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    if (named) {
      arguments.named.emplace_back(std::move(name), std::move(value));
    } else {
      arguments.positional.push_back(std::move(value));
    }
    if (!stream_.SkipOperator(",")) {
      break;
    }
  }
  RETURN_IF_ERROR(stream_.ExpectOperator(")"));
  return arguments;
}

}  // namespace tandem::jinja
