#include "common/chat_template/methods.h"

#include <string.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/chat_template/operators.h"
#include "common/chat_template/printing.h"
#include "common/chat_template/string_methods.h"

namespace tandem::jinja {
namespace {

absl::StatusOr<Value> DictGet(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"key", "default"}, 1));
  ASSIGN_OR_RETURN(const Value* value, FindInDict(runtime, *self.dict(), *bound[0]));
  return value != nullptr ? *value : bound[1] != nullptr ? *bound[1] : Value();
}

absl::StatusOr<Value> DictItems(Runtime& runtime, const Value& self, const Arguments& arguments) {
  RETURN_IF_ERROR(Bind(arguments, {}).status());
  std::vector<Value> items;
  for (const auto& [key, value] : self.dict()->items) {
    ASSIGN_OR_RETURN(Value pair, MakeList(runtime, {key, value}, List::Flavor::kTuple));
    items.push_back(std::move(pair));
  }
  return MakeList(runtime, std::move(items));
}

absl::StatusOr<Value> DictKeys(Runtime& runtime, const Value& self, const Arguments& arguments) {
  RETURN_IF_ERROR(Bind(arguments, {}).status());
  std::vector<Value> keys;
  for (const auto& [key, value] : self.dict()->items) {
    keys.push_back(key);
  }
  return MakeList(runtime, std::move(keys));
}

absl::StatusOr<Value> DictValues(Runtime& runtime, const Value& self, const Arguments& arguments) {
  RETURN_IF_ERROR(Bind(arguments, {}).status());
  std::vector<Value> values;
  for (const auto& [key, value] : self.dict()->items) {
    values.push_back(value);
  }
  return MakeList(runtime, std::move(values));
}

absl::StatusOr<Value> ListCount(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"value"}, 1));
  int64_t count = 0;
  for (const Value& item : self.list()->items) {
    ASSIGN_OR_RETURN(const bool equal, Equal(runtime, item, *bound[0]));
    count += equal ? 1 : 0;
  }
  return Value(count);
}

absl::StatusOr<Value> ListIndex(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"value"}, 1));
  const std::vector<Value>& items = self.list()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(const bool equal, Equal(runtime, items[i], *bound[0]));
    if (equal) {
      return Value(static_cast<int64_t>(i));
    }
  }
  return Fail("the value is not in the list");
}

absl::StatusOr<Value> LoopCycle(Runtime&, const Value& self, const Arguments& arguments) {
  if (arguments.positional.empty() || !arguments.named.empty()) {
    return Fail("takes values to cycle through");
  }
  return arguments.positional[self.loop()->index0 % arguments.positional.size()];
}

constexpr NativeEntry kDictMethods[] = {
    {"get", &DictGet}, {"items", &DictItems}, {"keys", &DictKeys}, {"values", &DictValues}};
constexpr NativeEntry kListMethods[] = {{"count", &ListCount}, {"index", &ListIndex}};
constexpr NativeEntry kLoopMethods[] = {{"cycle", &LoopCycle}};

}  // namespace

const NativeEntry* FindMethod(const Value& object, std::string_view name) {
  absl::Span<const NativeEntry> methods;
  if (object.text() != nullptr) {
    methods = StringMethods();
  } else if (object.dict() != nullptr) {
    methods = kDictMethods;
  } else if (object.list() != nullptr && object.list()->flavor != List::Flavor::kGenerator) {
    methods = kListMethods;
  } else if (object.loop() != nullptr) {
    methods = kLoopMethods;
  }
  const auto* found = std::find_if(methods.begin(), methods.end(),
                                   [name](const auto& entry) { return entry.name == name; });
  return found == methods.end() ? nullptr : found;
}

absl::StatusOr<Value> ReplaceAll(Runtime& runtime, const Text& text, const Text& from,
                                 const Text& to, int64_t max_count) {
  Text replaced;
  int64_t at = 0;
  int64_t search = 0;
  for (int64_t count = 0; (max_count < 0 || count < max_count) && search <= text.size(); ++count) {
    const void* match = memmem(text.bytes().data() + search, text.size() - search,
                               from.bytes().data(), from.size());
    if (match == nullptr) {
      break;
    }
    const int64_t found = static_cast<const char*>(match) - text.bytes().data();
    replaced.AppendSlice(text, at, found);
    replaced.Append(to);
    at = found + from.size();
    if (replaced.size() > kMaxStringBytes) {
      return Fail(absl::StrCat("a string of more than ", kMaxStringBytes, " bytes"));
    }
    // An empty text is found before each character and at the end.
    search = from.empty() && found < text.size()
                 ? found + CharacterAt(text.bytes(), found).num_bytes
                 : at + (from.empty() ? 1 : 0);
  }
  replaced.AppendSlice(text, at, text.size());
  return MakeText(runtime, std::move(replaced));
}

absl::StatusOr<Value> JoinAll(Runtime& runtime, const Text& separator, const List& list) {
  Text joined;
  bool first = true;
  for (const Value& item : list.items) {
    if (!first) {
      joined.Append(separator);
    }
    first = false;
    RETURN_IF_ERROR(AppendString(runtime, item, joined));
  }
  return MakeText(runtime, std::move(joined));
}

}  // namespace tandem::jinja
