#include "common/chat_template/filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/chat_template/methods.h"
#include "common/chat_template/operators.h"
#include "common/chat_template/printing.h"

namespace tandem::jinja {
namespace {

absl::StatusOr<Value> Trim(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"chars"}));
  ASSIGN_OR_RETURN(const Text text, ToText(runtime, input));
  const bool given = bound[0] != nullptr && !bound[0]->is_none();
  if (given && bound[0]->text() == nullptr) {
    return WrongType(*bound[0], "is not a string");
  }
  const Range kept = Strip(text.bytes(), given ? &bound[0]->text()->bytes() : nullptr, {});
  return MakeText(runtime, text.Slice(kept.begin, kept.end));
}

template <Text (*change)(const Text&)>
absl::StatusOr<Value> Change(Runtime& runtime, const Value& input, const Arguments& arguments) {
  RETURN_IF_ERROR(Bind(arguments, {}).status());
  ASSIGN_OR_RETURN(const Text text, ToText(runtime, input));
  return MakeText(runtime, change(text));
}
Text Same(const Text& text) { return text; }
Text Lower(const Text& text) { return ChangeCase(text, Case::kLower); }
Text Upper(const Text& text) { return ChangeCase(text, Case::kUpper); }
Text Escape(const Text& text) {
  constexpr std::pair<char, std::string_view> kEntities[] = {
      {'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'\'', "&#39;"}, {'"', "&#34;"}};
  Text escaped;
  OriginReader origin(text);
  for (int64_t at = 0; at < text.size(); ++at) {
    const char c = text.bytes()[at];
    const auto* entity = std::find_if(std::begin(kEntities), std::end(kEntities),
                                      [c](const auto& entry) { return entry.first == c; });
    escaped.Append(entity == std::end(kEntities) ? std::string_view(&c, 1) : entity->second,
                   origin.IsContent(at));
  }
  return escaped;
}

absl::StatusOr<Value> LengthFilter(Runtime& runtime, const Value& input,
                                   const Arguments& arguments) {
  RETURN_IF_ERROR(Bind(arguments, {}).status());
  ASSIGN_OR_RETURN(const int64_t length, Length(runtime, input));
  return Value(length);
}

absl::StatusOr<Value> Default(Runtime&, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"default_value", "boolean"}));
  const bool also_false = bound[1] != nullptr && IsTrue(*bound[1]);
  if (!input.is_undefined() && !(also_false && !IsTrue(input))) {
    return input;
  }
  return bound[0] != nullptr ? *bound[0] : Value::OfText("");
}

absl::StatusOr<Value> Replace(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"old", "new", "count"}, 2));
  ASSIGN_OR_RETURN(const Text text, ToText(runtime, input));
  ASSIGN_OR_RETURN(const Text from, ToText(runtime, *bound[0]));
  ASSIGN_OR_RETURN(const Text to, ToText(runtime, *bound[1]));
  const bool counted = bound[2] != nullptr && !bound[2]->is_none();
  if (counted && !bound[2]->integer()) {
    return WrongType(*bound[2], "is not a count");
  }
  return ReplaceAll(runtime, text, from, to, counted ? *bound[2]->integer() : -1);
}

// Python's int(text) in base 10; nothing for what it would refuse.
std::optional<int64_t> ParseInteger(const std::string& text) {
  const Range kept = Strip(text, nullptr, {});
  std::string digits = text.substr(kept.begin, kept.end - kept.begin);
  digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
  const size_t plus = digits.starts_with('+') ? 1 : 0;
  int64_t number = 0;
  const char* end = digits.data() + digits.size();
  const auto read = std::from_chars(digits.data() + plus, end, number);
  return read.ec == std::errc() && read.ptr == end ? std::optional<int64_t>(number) : std::nullopt;
}

std::optional<double> ParseReal(const std::string& text) {
  const Range kept = Strip(text, nullptr, {});
  double number = 0;
  return absl::SimpleAtod(text.substr(kept.begin, kept.end - kept.begin), &number)
             ? std::optional<double>(number)
             : std::nullopt;
}

absl::StatusOr<Value> IntFilter(Runtime&, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"default", "base"}));
  if (bound[1] != nullptr && !(bound[1]->integer() && *bound[1]->integer() == 10)) {
    return Fail("int: only base 10 is supported");
  }
  if (input.is_undefined()) {
    return Fail(input.reason());
  }
  std::optional<double> real;
  if (const Text* text = input.text()) {
    if (const auto number = ParseInteger(text->bytes())) {
      return Value(*number);
    }
    real = ParseReal(text->bytes());
  } else if (input.real()) {
    real = *input.real();
  } else if (input.is_number()) {
    return Value(input.AsInteger());
  }
  if (real.has_value() && std::abs(*real) < 9.2e18) {
    return Value(static_cast<int64_t>(*real));
  }
  return bound[0] != nullptr ? *bound[0] : Value(int64_t{0});
}

absl::StatusOr<Value> FloatFilter(Runtime&, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"default"}));
  if (input.is_undefined()) {
    return Fail(input.reason());
  }
  std::optional<double> real;
  if (input.is_number()) {
    real = input.AsReal();
  } else if (input.text()) {
    real = ParseReal(input.text()->bytes());
  }
  if (real.has_value()) {
    return Value(*real);
  }
  return bound[0] != nullptr ? *bound[0] : Value(0.0);
}

absl::StatusOr<Value> Abs(Runtime&, const Value& input, const Arguments& arguments) {
  RETURN_IF_ERROR(Bind(arguments, {}).status());
  if (!input.is_number()) {
    return WrongType(input, "has no absolute value");
  }
  return input.AsReal() < 0 ? Negate(input) : input;
}

// Spaces for a number, or the string itself; nothing for None.
absl::StatusOr<std::optional<std::string>> IndentOf(const Value* value) {
  constexpr int64_t kMaxIndent = 64;
  if (value == nullptr || value->is_none()) {
    return std::nullopt;
  }
  if (value->text() && value->text()->size() <= kMaxIndent) {
    return std::optional<std::string>(value->text()->bytes());
  }
  if (!value->integer() || *value->integer() > kMaxIndent) {
    return Fail(absl::StrCat("an indent is a number or a string, at most ", kMaxIndent));
  }
  return std::optional<std::string>(
      std::string(static_cast<size_t>(std::max<int64_t>(*value->integer(), 0)), ' '));
}

absl::StatusOr<Value> ToJson(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound,
                   Bind(arguments, {"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonOptions options;
  options.ensure_ascii = bound[0] != nullptr && IsTrue(*bound[0]);
  options.sort_keys = bound[3] != nullptr && IsTrue(*bound[3]);
  ASSIGN_OR_RETURN(options.indent, IndentOf(bound[1]));
  if (bound[2] != nullptr && !bound[2]->is_none()) {
    const List* separators = bound[2]->list();
    if (separators == nullptr || separators->items.size() != 2 || !separators->items[0].text() ||
        !separators->items[1].text()) {
      return Fail("tojson: separators are two strings");
    }
    options.item_separator = separators->items[0].text()->bytes();
    options.key_separator = separators->items[1].text()->bytes();
  }
  Text json;
  RETURN_IF_ERROR(AppendJson(runtime, input, options, json));
  return MakeText(runtime, std::move(json));
}

absl::StatusOr<Value> Indent(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"width", "first", "blank"}));
  ASSIGN_OR_RETURN(const std::optional<std::string> width, IndentOf(bound[0]));
  const std::string indent = width.value_or("    ");
  const bool first = bound[1] != nullptr && IsTrue(*bound[1]);
  const bool blank = bound[2] != nullptr && IsTrue(*bound[2]);
  if (input.text() == nullptr) {
    return WrongType(input, "cannot be indented");
  }
  const Text& text = *input.text();
  // jinja2 adds a line end before it cuts into lines: a last one adds an empty line.
  std::vector<Range> lines = SplitLines(text.bytes() + "\n");
  Text indented(first ? indent : "");
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) {
      indented.Append("\n");
      indented.Append(blank || lines[i].begin < lines[i].end ? indent : "");
    }
    indented.AppendSlice(text, lines[i].begin, lines[i].end);
    if (indented.size() > kMaxStringBytes) {
      return Fail(absl::StrCat("a string of more than ", kMaxStringBytes, " bytes"));
    }
  }
  return MakeText(runtime, std::move(indented));
}

constexpr NativeEntry kFilters[] = {
    {"trim", &Trim},
    {"string", &Change<&Same>},
    {"safe", &Change<&Same>},
    {"escape", &Change<&Escape>},
    {"e", &Change<&Escape>},
    {"lower", &Change<&Lower>},
    {"upper", &Change<&Upper>},
    {"title", &Change<&TitleByWords>},
    {"capitalize", &Change<&Capitalize>},
    {"length", &LengthFilter},
    {"count", &LengthFilter},
    {"default", &Default},
    {"d", &Default},
    {"replace", &Replace},
    {"int", &IntFilter},
    {"float", &FloatFilter},
    {"abs", &Abs},
    {"tojson", &ToJson},
    {"indent", &Indent},
};

}  // namespace

absl::Span<const NativeEntry> ValueFilters() { return kFilters; }

absl::StatusOr<Value> ApplyFilter(Runtime& runtime, std::string_view name, const Value& input,
                                  const Arguments& arguments) {
  for (const absl::Span<const NativeEntry> filters : {ValueFilters(), SequenceFilters()}) {
    for (const NativeEntry& filter : filters) {
      if (filter.name == name) {
        RETURN_IF_ERROR(ChargeForTexts(runtime, input, arguments));
        return filter.function(runtime, input, arguments);
      }
    }
  }
  return Fail(absl::StrFormat("no filter named '%s'", name.substr(0, 64)));
}

}  // namespace tandem::jinja
