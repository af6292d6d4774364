// Operators of expressions, from the weakest to the strongest binding.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/chat_template/limits.h"
#include "common/chat_template/parser.h"

namespace tandem::jinja {
namespace {

// Counts recursion for as long as it lives.
class Nesting {
 public:
  explicit Nesting(int& depth) : depth_(depth) { ++depth_; }
  ~Nesting() { --depth_; }
  bool too_deep() const { return depth_ > kMaxNestedParentheses; }

 private:
  int& depth_;
};

absl::Status TooDeep(int line) {
  return SyntaxError(line, absl::StrCat("an expression nests deeper than ", kMaxNestedParentheses));
}

}  // namespace

absl::StatusOr<ExpressionPtr> ExpressionParser::Make(int line, Expression::Node node,
                                                     int depth_of_children) {
  if (depth_of_children >= kMaxExpressionDepth) {
    return SyntaxError(line, absl::StrCat("an expression has more than ", kMaxExpressionDepth,
                                          " parts in a chain"));
  }
  auto expression = std::make_unique<Expression>();
  expression->line = line;
  expression->depth = depth_of_children + 1;
  expression->node = std::move(node);
  return expression;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::Make(
    int line, Expression::Node node, std::initializer_list<const Expression*> children) {
  int depth = 0;
  for (const Expression* child : children) {
    depth = std::max(depth, child == nullptr ? 0 : child->depth);
  }
  return Make(line, std::move(node), depth);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseExpression() {
  const Nesting nesting(nested_);
  if (nesting.too_deep()) {
    return TooDeep(stream_.line());
  }
  const int line = stream_.line();
  ASSIGN_OR_RETURN(ExpressionPtr expression, ParseOr());
  while (stream_.SkipName("if")) {
    ASSIGN_OR_RETURN(ExpressionPtr condition, ParseOr());
    ExpressionPtr otherwise;
    if (stream_.SkipName("else")) {
      ASSIGN_OR_RETURN(otherwise, ParseExpression());
    }
    const auto children = {expression->depth, condition->depth, otherwise ? otherwise->depth : 0};
    ASSIGN_OR_RETURN(expression,
                     Make(line,
                          ConditionalExpression{std::move(condition), std::move(expression),
                                                std::move(otherwise)},
                          std::max(children)));
  }
  return expression;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseLogic(const char* name, Part part) {
  const int line = stream_.line();
  ASSIGN_OR_RETURN(ExpressionPtr left, (this->*part)());
  while (stream_.SkipName(name)) {
    ASSIGN_OR_RETURN(ExpressionPtr right, (this->*part)());
    const int depth = std::max(left->depth, right->depth);
    const bool is_and = name[0] == 'a';
    ASSIGN_OR_RETURN(left,
                     Make(line, LogicExpression{is_and, std::move(left), std::move(right)}, depth));
  }
  return left;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseOr() {
  return ParseLogic("or", &ExpressionParser::ParseAnd);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseAnd() {
  return ParseLogic("and", &ExpressionParser::ParseNot);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseNot() {
  const int line = stream_.line();
  if (!stream_.SkipName("not")) {
    return ParseCompare();
  }
  const Nesting nesting(nested_);
  if (nesting.too_deep()) {
    return TooDeep(line);
  }
  ASSIGN_OR_RETURN(ExpressionPtr operand, ParseNot());
  const int depth = operand->depth;
  return Make(line, UnaryExpression{UnaryExpression::Operator::kNot, std::move(operand)}, depth);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseCompare() {
  using Operator = CompareExpression::Operator;
  constexpr std::pair<const char*, Operator> kOperators[] = {
      {"==", Operator::kEqual},     {"!=", Operator::kNotEqual}, {"<", Operator::kLess},
      {"<=", Operator::kLessEqual}, {">", Operator::kGreater},   {">=", Operator::kGreaterEqual}};
  const int line = stream_.line();
  ASSIGN_OR_RETURN(ExpressionPtr first, ParseSum());
  CompareExpression compare;
  int depth = first->depth;
  while (true) {
    const auto* found =
        std::find_if(std::begin(kOperators), std::end(kOperators),
                     [this](const auto& entry) { return stream_.IsOperator(entry.first); });
    Operator op = Operator::kIn;
    if (found != std::end(kOperators)) {
      op = found->second;
    } else if (stream_.IsName("not") && stream_.following().type == TokenType::kName &&
               stream_.following().text == "in") {
      stream_.Skip();
      op = Operator::kNotIn;
    } else if (!stream_.IsName("in")) {
      break;
    }
    stream_.Skip();
    ASSIGN_OR_RETURN(ExpressionPtr operand, ParseSum());
    depth = std::max(depth, operand->depth);
    compare.rest.emplace_back(op, std::move(operand));
  }
  if (compare.rest.empty()) {
    return first;
  }
  compare.first = std::move(first);
  return Make(line, std::move(compare), depth);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseSum() {
  const int line = stream_.line();
  ASSIGN_OR_RETURN(ExpressionPtr left, ParseConcat());
  while (stream_.IsOperator("+") || stream_.IsOperator("-")) {
    const Arithmetic op = stream_.IsOperator("+") ? Arithmetic::kAdd : Arithmetic::kSubtract;
    stream_.Skip();
    ASSIGN_OR_RETURN(ExpressionPtr right, ParseConcat());
    const int depth = std::max(left->depth, right->depth);
    ASSIGN_OR_RETURN(
        left, Make(line, ArithmeticExpression{op, std::move(left), std::move(right)}, depth));
  }
  return left;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseConcat() {
  const int line = stream_.line();
  ASSIGN_OR_RETURN(ExpressionPtr first, ParseProduct());
  if (!stream_.IsOperator("~")) {
    return first;
  }
  int depth = first->depth;
  ConcatExpression concat;
  concat.parts.push_back(std::move(first));
  while (stream_.SkipOperator("~")) {
    ASSIGN_OR_RETURN(ExpressionPtr part, ParseProduct());
    depth = std::max(depth, part->depth);
    concat.parts.push_back(std::move(part));
  }
  return Make(line, std::move(concat), depth);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseProduct() {
  constexpr std::pair<const char*, Arithmetic> kOperators[] = {{"*", Arithmetic::kMultiply},
                                                               {"/", Arithmetic::kDivide},
                                                               {"//", Arithmetic::kFloorDivide},
                                                               {"%", Arithmetic::kModulo}};
  const int line = stream_.line();
  ASSIGN_OR_RETURN(ExpressionPtr left, ParsePower());
  while (true) {
    const auto* found =
        std::find_if(std::begin(kOperators), std::end(kOperators),
                     [this](const auto& entry) { return stream_.IsOperator(entry.first); });
    if (found == std::end(kOperators)) {
      return left;
    }
    stream_.Skip();
    ASSIGN_OR_RETURN(ExpressionPtr right, ParsePower());
    const int depth = std::max(left->depth, right->depth);
    ASSIGN_OR_RETURN(
        left,
        Make(line, ArithmeticExpression{found->second, std::move(left), std::move(right)}, depth));
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePower() {
  const int line = stream_.line();
  ASSIGN_OR_RETURN(ExpressionPtr left, ParseUnary(/*with_filter=*/true));
  while (stream_.SkipOperator("**")) {
    ASSIGN_OR_RETURN(ExpressionPtr right, ParseUnary(/*with_filter=*/true));
    const int depth = std::max(left->depth, right->depth);
    ASSIGN_OR_RETURN(
        left,
        Make(line, ArithmeticExpression{Arithmetic::kPower, std::move(left), std::move(right)},
             depth));
  }
  return left;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseUnary(bool with_filter) {
  const int line = stream_.line();
  ExpressionPtr expression;
  if (stream_.IsOperator("-") || stream_.IsOperator("+")) {
    const auto op = stream_.IsOperator("-") ? UnaryExpression::Operator::kNegate
                                            : UnaryExpression::Operator::kPlus;
    const Nesting nesting(nested_);
    if (nesting.too_deep()) {
      return TooDeep(line);
    }
    stream_.Skip();
    ASSIGN_OR_RETURN(ExpressionPtr operand, ParseUnary(/*with_filter=*/false));
    const int depth = operand->depth;
    ASSIGN_OR_RETURN(expression, Make(line, UnaryExpression{op, std::move(operand)}, depth));
  } else {
    ASSIGN_OR_RETURN(expression, ParsePrimary());
  }
  ASSIGN_OR_RETURN(expression, ParsePostfix(std::move(expression)));
  return with_filter ? ParseFilters(std::move(expression))
                     : absl::StatusOr<ExpressionPtr>(std::move(expression));
}

}  // namespace tandem::jinja
