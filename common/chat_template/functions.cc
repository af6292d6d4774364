#include "common/chat_template/functions.h"

#include <algorithm>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/status_macros.h"
#include "common/chat_template/printing.h"
#include "common/chat_template/runtime.h"

namespace tandem::jinja {
namespace {

absl::StatusOr<Value> Range(Runtime& runtime, const Value&, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"start", "stop", "step"}, 1));
  int64_t numbers[3] = {0, 0, 1};
  for (size_t i = 0; i < 3; ++i) {
    if (bound[i] == nullptr) {
      continue;
    }
    if (!bound[i]->integer() && !bound[i]->boolean()) {
      return WrongType(*bound[i], "cannot be interpreted as an integer");
    }
    numbers[i] = bound[i]->AsInteger();
  }
  if (bound[1] == nullptr) {
    numbers[1] = std::exchange(numbers[0], 0);
  }
  const auto [start, stop, step] = numbers;
  if (step == 0) {
    return Fail("the step must not be zero");
  }
  std::vector<Value> items;
  for (__int128 number = start; step > 0 ? number < stop : number > stop; number += step) {
    if (static_cast<int64_t>(items.size()) >= kMaxListItems) {
      return Fail(absl::StrCat("a range of more than ", kMaxListItems, " numbers"));
    }
    items.emplace_back(static_cast<int64_t>(number));
  }
  return MakeList(runtime, std::move(items));
}

absl::StatusOr<Value> MakeNamespace(Runtime& runtime, const Value&, const Arguments& arguments) {
  auto attributes = std::make_unique<Namespace>();
  if (!arguments.positional.empty()) {
    const Dict* dict = arguments.positional[0].dict();
    if (arguments.positional.size() > 1 || dict == nullptr) {
      return Fail("takes one dict and named arguments");
    }
    for (const auto& [key, value] : dict->items) {
      ASSIGN_OR_RETURN(const Text name, ToText(runtime, key));
      attributes->attributes[name.bytes()] = value;
    }
  }
  for (const auto& [name, value] : arguments.named) {
    attributes->attributes[std::string(name)] = value;
  }
  runtime.namespaces.push_back(std::move(attributes));
  return Value(runtime.namespaces.back().get());
}

absl::StatusOr<Value> NewDict(Runtime& runtime, const Value&, const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> items;
  if (!arguments.positional.empty()) {
    const Dict* dict = arguments.positional[0].dict();
    if (arguments.positional.size() > 1 || dict == nullptr) {
      return Fail("takes one dict and named arguments");
    }
    items = dict->items;
  }
  for (const auto& [name, value] : arguments.named) {
    items.emplace_back(Value::OfText(name), value);
  }
  return MakeDict(runtime, std::move(items));
}

absl::StatusOr<Value> StrftimeNow(Runtime& runtime, const Value&, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"format"}, 1));
  const Text* format = bound[0]->text();
  constexpr int64_t kMaxFormatBytes = 128;
  if (format == nullptr || format->size() > kMaxFormatBytes) {
    return Fail(absl::StrCat("takes a format of at most ", kMaxFormatBytes, " bytes"));
  }
  const std::tm now = absl::ToTM(runtime.now, absl::LocalTimeZone());
  char text[4096];  // 0 is returned for an empty result and for one that does not fit
  const size_t num_bytes = std::strftime(text, sizeof(text), format->bytes().c_str(), &now);
  return MakeText(runtime, Text(std::string_view(text, num_bytes), format->has_content()));
}

constexpr NativeEntry kFunctions[] = {
    {"raise_exception", &RaiseException},
    {"strftime_now", &StrftimeNow},
    {"range", &Range},
    {"namespace", &MakeNamespace},
    {"dict", &NewDict},
};

}  // namespace

absl::StatusOr<Value> RaiseException(Runtime& runtime, const Value&, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"message"}, 1));
  ASSIGN_OR_RETURN(const Text message, ToText(runtime, *bound[0]));
  return Fail(message.bytes().substr(0, 1024));
}

const NativeEntry* FindFunction(std::string_view name) {
  const auto* found = std::find_if(std::begin(kFunctions), std::end(kFunctions),
                                   [name](const auto& entry) { return entry.name == name; });
  return found == std::end(kFunctions) ? nullptr : found;
}

}  // namespace tandem::jinja
