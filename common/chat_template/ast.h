// The program of a template. Trees are no deeper than limits.h allows, so that
// recursion over them, their destruction included, is safe.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/chat_template/operators.h"
#include "common/chat_template/value.h"

namespace tandem::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;
struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
};

struct LiteralExpression {
  Value value;
};
struct NameExpression {
  std::string name;
};
struct ListExpression {
  std::vector<ExpressionPtr> items;
  List::Flavor flavor = List::Flavor::kList;
};
struct DictExpression {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items;
};
struct AttributeExpression {
  ExpressionPtr object;
  std::string name;
};
struct ItemExpression {
  ExpressionPtr object;
  ExpressionPtr index;
};
struct SliceExpression {
  ExpressionPtr object;
  ExpressionPtr start;  // nullptr where it is left out
  ExpressionPtr stop;
  ExpressionPtr step;
};
struct UnaryExpression {
  enum class Operator { kNot, kNegate, kPlus };
  Operator op;
  ExpressionPtr operand;
};
struct ArithmeticExpression {
  Arithmetic op;
  ExpressionPtr left;
  ExpressionPtr right;
};
struct LogicExpression {
  bool is_and = false;  // otherwise `or`
  ExpressionPtr left;
  ExpressionPtr right;
};
struct CompareExpression {
  enum class Operator {
    kEqual,
    kNotEqual,
    kLess,
    kLessEqual,
    kGreater,
    kGreaterEqual,
    kIn,
    kNotIn
  };
  ExpressionPtr first;
  std::vector<std::pair<Operator, ExpressionPtr>> rest;  // `a < b < c` has two
};
struct ConcatExpression {
  std::vector<ExpressionPtr> parts;  // of `a ~ b ~ c`
};
struct ConditionalExpression {
  ExpressionPtr condition;
  ExpressionPtr then;
  ExpressionPtr otherwise;  // nullptr: undefined
};
struct CallExpression {
  ExpressionPtr callee;
  CallArguments arguments;
};
struct FilterExpression {
  ExpressionPtr input;  // nullptr: the text of the block that the filter is applied to
  std::string name;
  CallArguments arguments;
};
struct TestExpression {
  ExpressionPtr input;
  std::string name;
  CallArguments arguments;
};

struct Expression {
  using Node =
      std::variant<LiteralExpression, NameExpression, ListExpression, DictExpression,
                   AttributeExpression, ItemExpression, SliceExpression, UnaryExpression,
                   ArithmeticExpression, LogicExpression, CompareExpression, ConcatExpression,
                   ConditionalExpression, CallExpression, FilterExpression, TestExpression>;
  int line = 0;
  int depth = 1;  // of the tree below
  Node node;
};

// What `set` and `for` assign to: a name, `namespace.attribute`, or several in a row.
struct Target {
  std::string name;
  std::string attribute;      // empty for a plain name
  std::vector<Target> parts;  // not empty: a tuple, and the rest is unused
};

struct DataStatement {
  std::string text;
};
struct OutputStatement {
  ExpressionPtr value;
};
struct IfStatement {
  struct Branch {
    ExpressionPtr condition;
    Body body;
  };
  std::vector<Branch> branches;
  Body otherwise;
};
struct ForStatement {
  Target target;
  ExpressionPtr iterable;
  ExpressionPtr condition;  // nullptr for none
  Body body;
  Body otherwise;
};
struct SetStatement {
  Target target;
  ExpressionPtr value;
};
struct SetBlockStatement {
  Target target;
  ExpressionPtr filter;  // nullptr for none; the innermost filter has no input
  Body body;
};
struct Macro {
  struct Parameter {
    std::string name;
    ExpressionPtr fallback;  // nullptr for none
  };
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
};
struct BreakStatement {};
struct ContinueStatement {};
struct GenerationStatement {  // marks the assistant's text for training; renders its body
  Body body;
};

struct Statement {
  using Node = std::variant<DataStatement, OutputStatement, IfStatement, ForStatement, SetStatement,
                            SetBlockStatement, Macro, BreakStatement, ContinueStatement,
                            GenerationStatement>;
  int line = 0;
  Node node;
};

struct Program {
  Body body;
};

}  // namespace tandem::jinja
