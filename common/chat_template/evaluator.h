// Runs the program of a template.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/chat_template/ast.h"
#include "common/chat_template/runtime.h"
#include "common/chat_template/text.h"
#include "common/chat_template/value.h"

namespace tandem::jinja {

using Scope = absl::flat_hash_map<std::string_view, Value>;

// One rendering. Use once; the program and `runtime` must outlive it.
class Evaluator {
 public:
  // `variables` are those of the template's own level.
  Evaluator(Runtime& runtime, Scope variables) : runtime_(runtime) {
    scopes_.push_back(std::move(variables));
  }

  // Adds what the program prints to `out`. FAILED_PRECONDITION with the line.
  absl::Status Run(const Program& program, Text& out);

 private:
  enum class Flow { kNext, kBreak, kContinue };

  absl::StatusOr<Flow> ExecuteAll(const Body& body, Text& out);
  absl::StatusOr<Flow> Execute(const Statement& statement, Text& out);
  absl::StatusOr<Flow> ExecuteNode(const DataStatement& node, Text& out);
  absl::StatusOr<Flow> ExecuteNode(const OutputStatement& node, Text& out);
  absl::StatusOr<Flow> ExecuteNode(const IfStatement& node, Text& out);
  absl::StatusOr<Flow> ExecuteNode(const ForStatement& node, Text& out);
  absl::StatusOr<Flow> ExecuteNode(const SetStatement& node, Text& out);
  absl::StatusOr<Flow> ExecuteNode(const SetBlockStatement& node, Text& out);
  absl::StatusOr<Flow> ExecuteNode(const Macro& node, Text& out);
  absl::StatusOr<Flow> ExecuteNode(const BreakStatement& node, Text& out);
  absl::StatusOr<Flow> ExecuteNode(const ContinueStatement& node, Text& out);
  absl::StatusOr<Flow> ExecuteNode(const GenerationStatement& node, Text& out);
  // The items that a loop goes over, after its condition.
  absl::StatusOr<std::shared_ptr<const List>> LoopItems(const ForStatement& node);
  absl::Status Assign(const Target& target, const Value& value);

  absl::StatusOr<Value> Evaluate(const Expression& expression);
  absl::StatusOr<Value> EvaluateOrNone(const ExpressionPtr& expression);
  absl::StatusOr<Value> EvaluateNode(const LiteralExpression& node);
  absl::StatusOr<Value> EvaluateNode(const NameExpression& node);
  absl::StatusOr<Value> EvaluateNode(const ListExpression& node);
  absl::StatusOr<Value> EvaluateNode(const DictExpression& node);
  absl::StatusOr<Value> EvaluateNode(const AttributeExpression& node);
  absl::StatusOr<Value> EvaluateNode(const ItemExpression& node);
  absl::StatusOr<Value> EvaluateNode(const SliceExpression& node);
  absl::StatusOr<Value> EvaluateNode(const UnaryExpression& node);
  absl::StatusOr<Value> EvaluateNode(const ArithmeticExpression& node);
  absl::StatusOr<Value> EvaluateNode(const LogicExpression& node);
  absl::StatusOr<Value> EvaluateNode(const CompareExpression& node);
  absl::StatusOr<Value> EvaluateNode(const ConcatExpression& node);
  absl::StatusOr<Value> EvaluateNode(const ConditionalExpression& node);
  absl::StatusOr<Value> EvaluateNode(const CallExpression& node);
  absl::StatusOr<Value> EvaluateNode(const FilterExpression& node);
  absl::StatusOr<Value> EvaluateNode(const TestExpression& node);
  absl::StatusOr<bool> Compare(CompareExpression::Operator op, const Value& left,
                               const Value& right);
  absl::StatusOr<Arguments> EvaluateArguments(const CallArguments& arguments);
  absl::StatusOr<Value> CallMacro(const Macro& macro, const Arguments& arguments);
  absl::Status BindParameters(const Macro& macro, const Arguments& arguments);

  Runtime& runtime_;
  std::vector<Scope> scopes_;  // the template's own first, the innermost last
  size_t frame_ = 0;           // the first scope of the running macro
  Value block_text_;           // what the filter of a block is applied to
  int depth_ = 0;
  int error_line_ = 0;
};

}  // namespace tandem::jinja
