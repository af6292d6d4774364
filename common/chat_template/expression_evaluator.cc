#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/chat_template/evaluator.h"
#include "common/chat_template/filters.h"
#include "common/chat_template/functions.h"
#include "common/chat_template/limits.h"
#include "common/chat_template/operators.h"
#include "common/chat_template/predicates.h"
#include "common/chat_template/printing.h"

namespace tandem::jinja {

absl::StatusOr<Value> Evaluator::Evaluate(const Expression& expression) {
  absl::Status allowed = runtime_.budget.Charge(1);
  if (++depth_ > kMaxEvaluationDepth) {
    allowed = Fail(absl::StrCat("calls nest deeper than ", kMaxEvaluationDepth));
  }
  absl::StatusOr<Value> value =
      allowed.ok()
          ? std::visit([&](const auto& node) { return EvaluateNode(node); }, expression.node)
          : absl::StatusOr<Value>(allowed);
  --depth_;
  if (!value.ok() && error_line_ == 0) {
    error_line_ = expression.line;
  }
  return value;
}

absl::StatusOr<Value> Evaluator::EvaluateOrNone(const ExpressionPtr& expression) {
  return expression == nullptr ? Value() : Evaluate(*expression);
}

absl::StatusOr<Value> Evaluator::EvaluateNode(const LiteralExpression& node) { return node.value; }

absl::StatusOr<Value> Evaluator::EvaluateNode(const NameExpression& node) {
  for (size_t i = scopes_.size(); i > frame_; --i) {
    const auto found = scopes_[i - 1].find(node.name);
    if (found != scopes_[i - 1].end()) {
      return found->second;
    }
  }
  const auto found = scopes_.front().find(node.name);
  if (found != scopes_.front().end()) {
    return found->second;
  }
  if (const NativeEntry* function = FindFunction(node.name)) {
    return MakeMethod(*function, Value());
  }
  return Value::MakeUndefined(absl::StrFormat("'%s' is undefined", node.name.substr(0, 64)));
}

absl::StatusOr<Value> Evaluator::EvaluateNode(const ListExpression& node) {
  std::vector<Value> items;
  items.reserve(node.items.size());
  for (const ExpressionPtr& item : node.items) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*item));
    items.push_back(std::move(value));
  }
  return MakeList(runtime_, std::move(items), node.flavor);
}

absl::StatusOr<Value> Evaluator::EvaluateNode(const DictExpression& node) {
  std::vector<std::pair<Value, Value>> items;
  items.reserve(node.items.size());
  for (const auto& [key, value] : node.items) {
    ASSIGN_OR_RETURN(Value evaluated_key, Evaluate(*key));
    ASSIGN_OR_RETURN(Value evaluated_value, Evaluate(*value));
    items.emplace_back(std::move(evaluated_key), std::move(evaluated_value));
  }
  return MakeDict(runtime_, std::move(items));
}

absl::StatusOr<Value> Evaluator::EvaluateNode(const AttributeExpression& node) {
  ASSIGN_OR_RETURN(const Value object, Evaluate(*node.object));
  return GetAttribute(runtime_, object, node.name);
}

absl::StatusOr<Value> Evaluator::EvaluateNode(const ItemExpression& node) {
  ASSIGN_OR_RETURN(const Value object, Evaluate(*node.object));
  ASSIGN_OR_RETURN(const Value index, Evaluate(*node.index));
  return GetItem(runtime_, object, index);
}

absl::StatusOr<Value> Evaluator::EvaluateNode(const SliceExpression& node) {
  ASSIGN_OR_RETURN(const Value object, Evaluate(*node.object));
  SliceBounds bounds;
  ASSIGN_OR_RETURN(bounds.start, EvaluateOrNone(node.start));
  ASSIGN_OR_RETURN(bounds.stop, EvaluateOrNone(node.stop));
  ASSIGN_OR_RETURN(bounds.step, EvaluateOrNone(node.step));
  return GetSlice(runtime_, object, bounds);
}

absl::StatusOr<Value> Evaluator::EvaluateNode(const UnaryExpression& node) {
  ASSIGN_OR_RETURN(Value operand, Evaluate(*node.operand));
  switch (node.op) {
    case UnaryExpression::Operator::kNot:
      return Value(!IsTrue(operand));
    case UnaryExpression::Operator::kNegate:
      return Negate(operand);
    case UnaryExpression::Operator::kPlus:
      break;
  }
  return Compute(runtime_, Arithmetic::kAdd, Value(int64_t{0}), operand);
}

absl::StatusOr<Value> Evaluator::EvaluateNode(const ArithmeticExpression& node) {
  ASSIGN_OR_RETURN(const Value left, Evaluate(*node.left));
  ASSIGN_OR_RETURN(const Value right, Evaluate(*node.right));
  return Compute(runtime_, node.op, left, right);
}

absl::StatusOr<Value> Evaluator::EvaluateNode(const LogicExpression& node) {
  ASSIGN_OR_RETURN(Value left, Evaluate(*node.left));
  return IsTrue(left) == node.is_and ? Evaluate(*node.right) : std::move(left);
}

absl::StatusOr<bool> Evaluator::Compare(CompareExpression::Operator op, const Value& left,
                                        const Value& right) {
  using Operator = CompareExpression::Operator;
  if (op == Operator::kEqual || op == Operator::kNotEqual) {
    ASSIGN_OR_RETURN(const bool equal, Equal(runtime_, left, right));
    return equal == (op == Operator::kEqual);
  }
  if (op == Operator::kIn || op == Operator::kNotIn) {
    ASSIGN_OR_RETURN(const bool contained, Contains(runtime_, right, left));
    return contained == (op == Operator::kIn);
  }
  ASSIGN_OR_RETURN(const int order, Order(runtime_, left, right));
  return op == Operator::kLess        ? order < 0
         : op == Operator::kLessEqual ? order <= 0
         : op == Operator::kGreater   ? order > 0
                                      : order >= 0;
}

absl::StatusOr<Value> Evaluator::EvaluateNode(const CompareExpression& node) {
  ASSIGN_OR_RETURN(Value left, Evaluate(*node.first));
  for (const auto& [op, operand] : node.rest) {
    ASSIGN_OR_RETURN(Value right, Evaluate(*operand));
    ASSIGN_OR_RETURN(const bool holds, Compare(op, left, right));
    if (!holds) {
      return Value(false);
    }
    left = std::move(right);
  }
  return Value(true);
}

absl::StatusOr<Value> Evaluator::EvaluateNode(const ConcatExpression& node) {
  Text text;
  for (const ExpressionPtr& part : node.parts) {
    ASSIGN_OR_RETURN(const Value value, Evaluate(*part));
    RETURN_IF_ERROR(AppendString(runtime_, value, text));
  }
  return MakeText(runtime_, std::move(text));
}

absl::StatusOr<Value> Evaluator::EvaluateNode(const ConditionalExpression& node) {
  ASSIGN_OR_RETURN(const Value condition, Evaluate(*node.condition));
  if (IsTrue(condition)) {
    return Evaluate(*node.then);
  }
  return node.otherwise != nullptr
             ? Evaluate(*node.otherwise)
             : Value::MakeUndefined("an 'if' expression is false and has no 'else'");
}

absl::StatusOr<Arguments> Evaluator::EvaluateArguments(const CallArguments& arguments) {
  Arguments evaluated;
  for (const ExpressionPtr& argument : arguments.positional) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*argument));
    evaluated.positional.push_back(std::move(value));
  }
  for (const auto& [name, argument] : arguments.named) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*argument));
    evaluated.named.emplace_back(name, std::move(value));
  }
  return evaluated;
}

absl::StatusOr<Value> Evaluator::EvaluateNode(const CallExpression& node) {
  ASSIGN_OR_RETURN(const Value callee, Evaluate(*node.callee));
  ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(node.arguments));
  const Callable* callable = callee.callable();
  if (callable == nullptr) {
    return WrongType(callee, "is not callable");
  }
  if (callable->macro != nullptr) {
    return CallMacro(*callable->macro, arguments);
  }
  RETURN_IF_ERROR(ChargeForTexts(runtime_, callable->self, arguments));
  absl::StatusOr<Value> result = callable->native(runtime_, callable->self, arguments);
  if (!result.ok() && callable->native != &RaiseException) {
    return Fail(
        absl::StrFormat("%s(): %s", callable->name, std::string(result.status().message())));
  }
  return result;
}

absl::StatusOr<Value> Evaluator::EvaluateNode(const FilterExpression& node) {
  Value input = block_text_;
  if (node.input != nullptr) {
    ASSIGN_OR_RETURN(input, Evaluate(*node.input));
  }
  ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(node.arguments));
  return ApplyFilter(runtime_, node.name, input, arguments);
}

absl::StatusOr<Value> Evaluator::EvaluateNode(const TestExpression& node) {
  ASSIGN_OR_RETURN(const Value input, Evaluate(*node.input));
  ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(node.arguments));
  ASSIGN_OR_RETURN(const bool holds, ApplyTest(runtime_, node.name, input, arguments));
  return Value(holds);
}

}  // namespace tandem::jinja
