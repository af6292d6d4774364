#include "common/chat_template/predicates.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/chat_template/filters.h"
#include "common/chat_template/operators.h"
#include "common/chat_template/printing.h"

namespace tandem::jinja {
namespace {

using PlainTest = bool (*)(const Value& input);

bool IsSequence(const Value& value) {
  const List* list = value.list();
  return value.text() || value.dict() || value.is_undefined() ||
         (list != nullptr && list->flavor != List::Flavor::kGenerator);
}

struct PlainEntry {
  std::string_view name;
  PlainTest test;
};
constexpr PlainEntry kPlainTests[] = {
    {"defined", [](const Value& v) { return !v.is_undefined(); }},
    {"undefined", [](const Value& v) { return v.is_undefined(); }},
    {"none", [](const Value& v) { return v.is_none(); }},
    {"string", [](const Value& v) { return v.text() != nullptr; }},
    {"mapping", [](const Value& v) { return v.dict() != nullptr; }},
    {"sequence", &IsSequence},
    {"iterable", [](const Value& v) { return IsSequence(v) || v.list() || v.loop(); }},
    {"number", [](const Value& v) { return v.is_number(); }},
    {"boolean", [](const Value& v) { return v.boolean() != nullptr; }},
    {"integer", [](const Value& v) { return v.integer() != nullptr; }},
    {"float", [](const Value& v) { return v.real() != nullptr; }},
    {"true", [](const Value& v) { return v.boolean() && *v.boolean(); }},
    {"false", [](const Value& v) { return v.boolean() && !*v.boolean(); }},
    {"callable", [](const Value& v) { return v.callable() || v.is_undefined(); }},
};

// Tests with one argument that are an operator.
absl::StatusOr<bool> CompareTest(Runtime& runtime, std::string_view name, const Value& left,
                                 const Value& right) {
  if (name == "eq" || name == "ne") {
    ASSIGN_OR_RETURN(const bool equal, Equal(runtime, left, right));
    return equal == (name == "eq");
  }
  if (name == "in") {
    return Contains(runtime, right, left);
  }
  ASSIGN_OR_RETURN(const int order, Order(runtime, left, right));
  return name == "lt"   ? order < 0
         : name == "le" ? order <= 0
         : name == "gt" ? order > 0
                        : order >= 0;
}

std::string_view OperatorOf(std::string_view name) {
  constexpr std::pair<std::string_view, std::string_view> kNames[] = {
      {"eq", "eq"}, {"equalto", "eq"}, {"==", "eq"},       {"ne", "ne"},
      {"!=", "ne"}, {"lt", "lt"},      {"lessthan", "lt"}, {"<", "lt"},
      {"le", "le"}, {"<=", "le"},      {"gt", "gt"},       {"greaterthan", "gt"},
      {">", "gt"},  {"ge", "ge"},      {">=", "ge"},       {"in", "in"}};
  const auto* found = std::find_if(std::begin(kNames), std::end(kNames),
                                   [name](const auto& entry) { return entry.first == name; });
  return found == std::end(kNames) ? "" : found->second;
}

// `value % divisor == remainder`.
absl::StatusOr<bool> Divides(Runtime& runtime, const Value& value, const Value& divisor,
                             int64_t remainder) {
  ASSIGN_OR_RETURN(const Value rest, Compute(runtime, Arithmetic::kModulo, value, divisor));
  return Equal(runtime, rest, Value(remainder));
}

// As str.islower() and str.isupper(): some cased letter, and none of the other case.
absl::StatusOr<bool> HasCase(Runtime& runtime, const Value& value, Case target) {
  ASSIGN_OR_RETURN(const Text text, ToText(runtime, value));
  const std::string_view bytes = text.bytes();
  bool cased = false;
  for (int64_t at = 0; at < text.size();) {
    const Character character = CharacterAt(bytes, at);
    const std::string_view letter = bytes.substr(at, character.num_bytes);
    if (IsCased(character.code_point)) {
      cased = true;
      const Case other = target == Case::kLower ? Case::kUpper : Case::kLower;
      if (ChangeCase(letter, target) != letter && ChangeCase(letter, other) == letter) {
        return false;
      }
    }
    at += character.num_bytes;
  }
  return cased;
}

bool IsSame(const Value& left, const Value& right) {
  if (left.is_number() || left.text()) {  // small ones are one object in Python
    return false;
  }
  return (left.is_none() && right.is_none()) || (left.list() && left.list() == right.list()) ||
         (left.dict() && left.dict() == right.dict()) ||
         (left.attributes() && left.attributes() == right.attributes());
}

}  // namespace

absl::StatusOr<bool> ApplyTest(Runtime& runtime, std::string_view name, const Value& input,
                               const Arguments& arguments) {
  const auto* plain = std::find_if(std::begin(kPlainTests), std::end(kPlainTests),
                                   [name](const auto& entry) { return entry.name == name; });
  if (plain != std::end(kPlainTests)) {
    RETURN_IF_ERROR(Bind(arguments, {}).status());
    return plain->test(input);
  }
  if (name == "even" || name == "odd") {
    RETURN_IF_ERROR(Bind(arguments, {}).status());
    return Divides(runtime, input, Value(int64_t{2}), name == "odd" ? 1 : 0);
  }
  if (name == "lower" || name == "upper") {
    RETURN_IF_ERROR(Bind(arguments, {}).status());
    return HasCase(runtime, input, name == "lower" ? Case::kLower : Case::kUpper);
  }
  const std::string_view comparison = OperatorOf(name);
  if (comparison.empty() && name != "divisibleby" && name != "sameas") {
    return Fail(absl::StrFormat("no test named '%s'", name.substr(0, 64)));
  }
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"other"}, 1));
  if (name == "divisibleby") {
    return Divides(runtime, input, *bound[0], 0);
  }
  if (name == "sameas") {
    if (input.boolean() && bound[0]->boolean()) {
      return *input.boolean() == *bound[0]->boolean();
    }
    return IsSame(input, *bound[0]);
  }
  return CompareTest(runtime, comparison, input, *bound[0]);
}

}  // namespace tandem::jinja
