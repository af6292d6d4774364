#include "common/chat_template/runtime.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/chat_template/operators.h"

namespace tandem::jinja {

absl::Status Budget::OutOfSteps() {
  return Fail(absl::StrCat("the template takes more than ", kMaxSteps, " steps"));
}

absl::Status Fail(std::string message) { return absl::FailedPreconditionError(message); }

absl::Status WrongType(const Value& value, const char* problem) {
  if (value.is_undefined()) {
    return Fail(value.reason());
  }
  return Fail(absl::StrFormat("'%s' object %s", value.TypeName(), problem));
}

absl::StatusOr<Value> MakeText(Runtime& runtime, Text text) {
  if (text.size() > kMaxStringBytes) {
    return Fail(absl::StrCat("a string of ", text.size(), " bytes, at most ", kMaxStringBytes));
  }
  RETURN_IF_ERROR(runtime.budget.ChargeBytes(text.size()));
  return Value(std::make_shared<const Text>(std::move(text)));
}

absl::StatusOr<Value> MakeList(Runtime& runtime, std::vector<Value> items, List::Flavor flavor) {
  const auto count = static_cast<int64_t>(items.size());
  if (count > kMaxListItems) {
    return Fail(absl::StrCat("a list of ", count, " items, at most ", kMaxListItems));
  }
  RETURN_IF_ERROR(runtime.budget.Charge(count));
  int depth = 0;
  for (const Value& item : items) {
    depth = std::max(depth, item.depth());
  }
  if (depth >= kMaxValueDepth) {
    return Fail(absl::StrCat("lists nested deeper than ", kMaxValueDepth));
  }
  return Value(std::make_shared<const List>(List{std::move(items), flavor, depth + 1}));
}

absl::StatusOr<Value> MakeDict(Runtime& runtime, std::vector<std::pair<Value, Value>> items) {
  const auto count = static_cast<int64_t>(items.size());
  if (count > kMaxDictItems) {
    return Fail(absl::StrCat("a dict of ", count, " items, at most ", kMaxDictItems));
  }
  Dict dict;
  for (auto& [key, value] : items) {
    dict.depth = std::max({dict.depth, key.depth(), value.depth()});
    bool replaced = false;
    for (auto& earlier : dict.items) {
      ASSIGN_OR_RETURN(replaced, Equal(runtime, earlier.first, key));
      if (replaced) {
        earlier.second = std::move(value);
        break;
      }
    }
    if (!replaced) {
      dict.items.emplace_back(std::move(key), std::move(value));
    }
  }
  if (dict.depth >= kMaxValueDepth) {
    return Fail(absl::StrCat("dicts nested deeper than ", kMaxValueDepth));
  }
  ++dict.depth;
  return Value(std::make_shared<const Dict>(std::move(dict)));
}

Value MakeMethod(const NativeEntry& entry, Value self) {
  return Value(std::make_shared<const Callable>(
      Callable{.name = entry.name, .native = entry.function, .self = std::move(self)}));
}

absl::Status ChargeForTexts(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const auto size = [](const Value& value) { return value.text() ? value.text()->size() : 0; };
  int64_t num_bytes = size(self);
  for (const Value& argument : arguments.positional) {
    num_bytes += size(argument);
  }
  for (const auto& [name, argument] : arguments.named) {
    num_bytes += size(argument);
  }
  return runtime.budget.ChargeBytes(num_bytes);
}

absl::StatusOr<BoundArguments> Bind(const Arguments& arguments,
                                    std::initializer_list<std::string_view> parameters,
                                    size_t num_required) {
  if (arguments.positional.size() > parameters.size()) {
    return Fail(absl::StrCat("takes at most ", parameters.size(), " arguments, ",
                             arguments.positional.size(), " given"));
  }
  BoundArguments bound(parameters.size(), nullptr);
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    bound[i] = &arguments.positional[i];
  }
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(parameters.begin(), parameters.end(), name);
    if (found == parameters.end()) {
      return Fail(absl::StrFormat("takes no argument '%s'", name));
    }
    const Value*& slot = bound[found - parameters.begin()];
    if (slot != nullptr) {
      return Fail(absl::StrFormat("argument '%s' is given twice", name));
    }
    slot = &value;
  }
  for (size_t i = 0; i < num_required; ++i) {
    if (bound[i] == nullptr) {
      return Fail(absl::StrFormat("argument '%s' is missing", *(parameters.begin() + i)));
    }
  }
  return bound;
}

}  // namespace tandem::jinja
