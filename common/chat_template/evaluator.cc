// Statements. Expressions are in expression_evaluator.cc.
#include "common/chat_template/evaluator.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/chat_template/limits.h"
#include "common/chat_template/operators.h"
#include "common/chat_template/printing.h"

namespace tandem::jinja {

absl::Status Evaluator::Run(const Program& program, Text& out) {
  const absl::Status status = ExecuteAll(program.body, out).status();
  if (status.ok()) {
    return status;
  }
  return absl::Status(status.code(),
                      absl::StrCat("chat template line ", error_line_, ": ", status.message()));
}

absl::StatusOr<Evaluator::Flow> Evaluator::ExecuteAll(const Body& body, Text& out) {
  for (const auto& statement : body) {
    ASSIGN_OR_RETURN(const Flow flow, Execute(*statement, out));
    if (flow != Flow::kNext) {
      return flow;
    }
  }
  return Flow::kNext;
}

absl::StatusOr<Evaluator::Flow> Evaluator::Execute(const Statement& statement, Text& out) {
  absl::Status allowed = runtime_.budget.Charge(1);
  if (++depth_ > kMaxEvaluationDepth) {
    allowed = Fail(absl::StrCat("calls nest deeper than ", kMaxEvaluationDepth));
  }
  absl::StatusOr<Flow> flow =
      allowed.ok()
          ? std::visit([&](const auto& node) { return ExecuteNode(node, out); }, statement.node)
          : absl::StatusOr<Flow>(allowed);
  --depth_;
  if (!flow.ok() && error_line_ == 0) {
    error_line_ = statement.line;
  }
  return flow;
}

absl::StatusOr<Evaluator::Flow> Evaluator::ExecuteNode(const DataStatement& node, Text& out) {
  const auto num_bytes = static_cast<int64_t>(node.text.size());
  if (out.size() + num_bytes > kMaxOutputBytes) {
    return Fail(absl::StrCat("the template prints more than ", kMaxOutputBytes, " bytes"));
  }
  RETURN_IF_ERROR(runtime_.budget.ChargeBytes(num_bytes));
  out.Append(node.text);
  return Flow::kNext;
}

absl::StatusOr<Evaluator::Flow> Evaluator::ExecuteNode(const OutputStatement& node, Text& out) {
  ASSIGN_OR_RETURN(const Value value, Evaluate(*node.value));
  RETURN_IF_ERROR(AppendString(runtime_, value, out));
  return Flow::kNext;
}

absl::StatusOr<Evaluator::Flow> Evaluator::ExecuteNode(const IfStatement& node, Text& out) {
  for (const IfStatement::Branch& branch : node.branches) {
    ASSIGN_OR_RETURN(const Value condition, Evaluate(*branch.condition));
    if (IsTrue(condition)) {
      return ExecuteAll(branch.body, out);
    }
  }
  return ExecuteAll(node.otherwise, out);
}

absl::StatusOr<std::shared_ptr<const List>> Evaluator::LoopItems(const ForStatement& node) {
  ASSIGN_OR_RETURN(const Value iterable, Evaluate(*node.iterable));
  ASSIGN_OR_RETURN(std::shared_ptr<const List> items, Iterate(runtime_, iterable));
  if (node.condition == nullptr) {
    return items;
  }
  std::vector<Value> kept;
  scopes_.emplace_back();
  for (const Value& item : items->items) {
    scopes_.back().clear();
    RETURN_IF_ERROR(Assign(node.target, item));
    ASSIGN_OR_RETURN(const Value condition, Evaluate(*node.condition));
    if (IsTrue(condition)) {
      kept.push_back(item);
    }
  }
  scopes_.pop_back();
  ASSIGN_OR_RETURN(const Value list, MakeList(runtime_, std::move(kept)));
  return list.shared_list();
}

absl::StatusOr<Evaluator::Flow> Evaluator::ExecuteNode(const ForStatement& node, Text& out) {
  ASSIGN_OR_RETURN(std::shared_ptr<const List> items, LoopItems(node));
  if (items->depth >= kMaxValueDepth) {
    return Fail(absl::StrCat("loops over lists nested deeper than ", kMaxValueDepth));
  }
  scopes_.emplace_back();
  const auto count = static_cast<int64_t>(items->items.size());
  const auto loop = std::make_shared<Loop>(Loop{.items = items});
  bool completed = false;  // jinja2 takes `else` too when each round ended by a jump
  for (; loop->index0 < count; ++loop->index0) {
    RETURN_IF_ERROR(runtime_.budget.Charge(1));
    scopes_.back().clear();
    scopes_.back()["loop"] = Value(std::shared_ptr<const Loop>(loop));
    RETURN_IF_ERROR(Assign(node.target, items->items[loop->index0]));
    ASSIGN_OR_RETURN(const Flow flow, ExecuteAll(node.body, out));
    completed = completed || flow == Flow::kNext;
    if (flow == Flow::kBreak) {
      break;
    }
  }
  scopes_.back().clear();
  absl::StatusOr<Flow> flow = completed ? Flow::kNext : ExecuteAll(node.otherwise, out);
  scopes_.pop_back();
  return flow;
}

absl::Status Evaluator::Assign(const Target& target, const Value& value) {
  if (!target.parts.empty()) {
    ASSIGN_OR_RETURN(const std::shared_ptr<const List> list, Iterate(runtime_, value));
    if (list->items.size() != target.parts.size()) {
      return Fail(absl::StrCat("cannot unpack ", list->items.size(), " values into ",
                               target.parts.size(), " variables"));
    }
    for (size_t i = 0; i < target.parts.size(); ++i) {
      RETURN_IF_ERROR(Assign(target.parts[i], list->items[i]));
    }
    return absl::OkStatus();
  }
  if (target.attribute.empty()) {
    scopes_.back()[target.name] = value;
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const Value object, EvaluateNode(NameExpression{target.name}));
  Namespace* attributes = object.attributes();
  if (attributes == nullptr) {
    return WrongType(object, "is no namespace, its attributes cannot be set");
  }
  attributes->attributes[target.attribute] = value;
  return absl::OkStatus();
}

absl::StatusOr<Evaluator::Flow> Evaluator::ExecuteNode(const SetStatement& node, Text&) {
  ASSIGN_OR_RETURN(const Value value, Evaluate(*node.value));
  RETURN_IF_ERROR(Assign(node.target, value));
  return Flow::kNext;
}

absl::StatusOr<Evaluator::Flow> Evaluator::ExecuteNode(const SetBlockStatement& node, Text&) {
  Text text;
  scopes_.emplace_back();
  RETURN_IF_ERROR(ExecuteAll(node.body, text).status());
  scopes_.pop_back();
  ASSIGN_OR_RETURN(Value value, MakeText(runtime_, std::move(text)));
  if (node.filter != nullptr) {
    block_text_ = value;
    ASSIGN_OR_RETURN(value, Evaluate(*node.filter));
  }
  RETURN_IF_ERROR(Assign(node.target, value));
  return Flow::kNext;
}

absl::StatusOr<Evaluator::Flow> Evaluator::ExecuteNode(const Macro& node, Text&) {
  scopes_.back()[node.name] =
      Value(std::make_shared<const Callable>(Callable{.name = node.name, .macro = &node}));
  return Flow::kNext;
}

absl::StatusOr<Evaluator::Flow> Evaluator::ExecuteNode(const BreakStatement&, Text&) {
  return Flow::kBreak;
}

absl::StatusOr<Evaluator::Flow> Evaluator::ExecuteNode(const ContinueStatement&, Text&) {
  return Flow::kContinue;
}

absl::StatusOr<Evaluator::Flow> Evaluator::ExecuteNode(const GenerationStatement& node, Text& out) {
  scopes_.emplace_back();
  RETURN_IF_ERROR(ExecuteAll(node.body, out).status());
  scopes_.pop_back();
  return Flow::kNext;
}

absl::Status Evaluator::BindParameters(const Macro& macro, const Arguments& arguments) {
  if (arguments.positional.size() > macro.parameters.size()) {
    return Fail(absl::StrFormat("macro '%s' takes at most %d arguments, %d given", macro.name,
                                macro.parameters.size(), arguments.positional.size()));
  }
  Scope& scope = scopes_.back();
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    scope[macro.parameters[i].name] = arguments.positional[i];
  }
  for (const auto& [name, value] : arguments.named) {
    bool known = false;
    for (const Macro::Parameter& parameter : macro.parameters) {
      known = known || parameter.name == name;
    }
    if (!known || !scope.emplace(name, value).second) {
      return Fail(absl::StrFormat("macro '%s' takes no argument '%s', or has it already",
                                  macro.name, name));
    }
  }
  for (const Macro::Parameter& parameter : macro.parameters) {
    if (scopes_.back().contains(parameter.name)) {
      continue;
    }
    Value value =
        Value::MakeUndefined(absl::StrFormat("parameter '%s' was not provided", parameter.name));
    if (parameter.fallback != nullptr) {
      ASSIGN_OR_RETURN(value, Evaluate(*parameter.fallback));
    }
    scopes_.back()[parameter.name] = value;
  }
  return absl::OkStatus();
}

absl::StatusOr<Value> Evaluator::CallMacro(const Macro& macro, const Arguments& arguments) {
  const size_t caller_frame = std::exchange(frame_, scopes_.size());
  scopes_.emplace_back();
  RETURN_IF_ERROR(BindParameters(macro, arguments));
  Text text;
  RETURN_IF_ERROR(ExecuteAll(macro.body, text).status());
  scopes_.pop_back();
  frame_ = caller_frame;
  return MakeText(runtime_, std::move(text));
}

}  // namespace tandem::jinja
