// Filters that go over lists.
#include <algorithm>
#include <charconv>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/chat_template/filters.h"
#include "common/chat_template/methods.h"
#include "common/chat_template/operators.h"
#include "common/chat_template/predicates.h"
#include "common/chat_template/printing.h"

namespace tandem::jinja {
namespace {

// Items of items by a path such as "function.name" or "0"; the item itself without one.
absl::StatusOr<Value> Follow(Runtime& runtime, Value item, const Value* path) {
  if (path == nullptr || path->is_none()) {
    return item;
  }
  if (path->text() == nullptr) {
    return GetItem(runtime, item, *path);
  }
  std::string_view rest = path->text()->bytes();
  while (true) {
    const size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    int64_t index = 0;
    const auto number = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = !part.empty() && part[0] != '-' && number.ec == std::errc() &&
                          number.ptr == part.data() + part.size();
    ASSIGN_OR_RETURN(item, GetItem(runtime, item, is_index ? Value(index) : Value::OfText(part)));
    if (dot == rest.npos) {
      return item;
    }
    rest.remove_prefix(dot + 1);
  }
}

absl::StatusOr<std::string_view> NameOf(const Value& value) {
  if (value.text() == nullptr) {
    return WrongType(value, "is not the name of a filter or test");
  }
  return std::string_view(value.text()->bytes());
}

// The arguments after the first `count`.
Arguments After(const Arguments& arguments, size_t count) {
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin(),
                        rest.positional.begin() + std::min(count, rest.positional.size()));
  return rest;
}

// As Iterate, but nothing for whatever is false, as map() and select() have it.
absl::StatusOr<std::shared_ptr<const List>> IterateIfTrue(Runtime& runtime, const Value& value) {
  return IsTrue(value) ? Iterate(runtime, value) : std::make_shared<const List>();
}

absl::StatusOr<Value> MapFilter(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const std::shared_ptr<const List> list, IterateIfTrue(runtime, input));
  std::vector<Value> mapped;
  mapped.reserve(list->items.size());
  if (arguments.positional.empty()) {
    ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"attribute", "default"}, 1));
    for (const Value& item : list->items) {
      ASSIGN_OR_RETURN(Value value, Follow(runtime, item, bound[0]));
      const bool missing = value.is_undefined() && bound[1] != nullptr;
      mapped.push_back(missing ? *bound[1] : std::move(value));
    }
    return MakeList(runtime, std::move(mapped), List::Flavor::kGenerator);
  }
  ASSIGN_OR_RETURN(const std::string_view name, NameOf(arguments.positional[0]));
  if (name == "map") {
    return Fail("map: a map of maps is not supported");  // each could be as large again
  }
  const Arguments rest = After(arguments, 1);
  for (const Value& item : list->items) {
    RETURN_IF_ERROR(runtime.budget.Charge(1));
    ASSIGN_OR_RETURN(Value value, ApplyFilter(runtime, name, item, rest));
    mapped.push_back(std::move(value));
  }
  return MakeList(runtime, std::move(mapped), List::Flavor::kGenerator);
}

// select, reject, selectattr and rejectattr: keeps the items, or those with an
// attribute, for which a test holds or does not; truth where no test is named.
template <bool kAttribute, bool kKeep>
absl::StatusOr<Value> Select(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const std::shared_ptr<const List> list, IterateIfTrue(runtime, input));
  constexpr size_t kTestAt = kAttribute ? 1 : 0;
  if (arguments.positional.size() < kTestAt) {
    return Fail("selectattr: the name of an attribute is missing");
  }
  const bool has_test = arguments.positional.size() > kTestAt;
  std::string_view test;
  if (has_test) {
    ASSIGN_OR_RETURN(test, NameOf(arguments.positional[kTestAt]));
  }
  const Arguments rest = After(arguments, kTestAt + 1);
  std::vector<Value> kept;
  for (const Value& item : list->items) {
    RETURN_IF_ERROR(runtime.budget.Charge(1));
    Value subject = item;
    if (kAttribute) {
      ASSIGN_OR_RETURN(subject, Follow(runtime, item, &arguments.positional[0]));
    }
    bool holds = IsTrue(subject);
    if (has_test) {
      ASSIGN_OR_RETURN(holds, ApplyTest(runtime, test, subject, rest));
    }
    if (holds == kKeep) {
      kept.push_back(item);
    }
  }
  return MakeList(runtime, std::move(kept), List::Flavor::kGenerator);
}

absl::StatusOr<Value> Join(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"d", "attribute"}));
  ASSIGN_OR_RETURN(std::shared_ptr<const List> list, Iterate(runtime, input));
  Text separator;
  if (bound[0] != nullptr) {
    ASSIGN_OR_RETURN(separator, ToText(runtime, *bound[0]));
  }
  if (bound[1] != nullptr && !bound[1]->is_none()) {
    std::vector<Value> values;
    for (const Value& item : list->items) {
      ASSIGN_OR_RETURN(Value value, Follow(runtime, item, bound[1]));
      values.push_back(std::move(value));
    }
    ASSIGN_OR_RETURN(const Value attributes, MakeList(runtime, std::move(values)));
    list = attributes.shared_list();
  }
  return JoinAll(runtime, separator, *list);
}

template <bool kFirst>
absl::StatusOr<Value> End(Runtime& runtime, const Value& input, const Arguments& arguments) {
  RETURN_IF_ERROR(Bind(arguments, {}).status());
  if (!kFirst && input.list() && input.list()->flavor == List::Flavor::kGenerator) {
    return WrongType(input, "is not reversible");
  }
  if (input.text() != nullptr && !input.text()->empty()) {
    return GetItem(runtime, input, Value(int64_t{kFirst ? 0 : -1}));
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<const List> list, Iterate(runtime, input));
  if (list->items.empty()) {
    return Value::MakeUndefined("the sequence is empty");
  }
  return kFirst ? list->items.front() : list->items.back();
}

absl::StatusOr<Value> ListFilter(Runtime& runtime, const Value& input, const Arguments& arguments) {
  RETURN_IF_ERROR(Bind(arguments, {}).status());
  ASSIGN_OR_RETURN(const std::shared_ptr<const List> list, Iterate(runtime, input));
  return MakeList(runtime, list->items);
}

absl::StatusOr<Value> Items(Runtime& runtime, const Value& input, const Arguments& arguments) {
  RETURN_IF_ERROR(Bind(arguments, {}).status());
  if (input.is_undefined()) {
    return MakeList(runtime, {}, List::Flavor::kGenerator);
  }
  const NativeEntry* items = input.dict() ? FindMethod(input, "items") : nullptr;
  if (items == nullptr) {
    return WrongType(input, "is no mapping and has no items");
  }
  ASSIGN_OR_RETURN(const Value list, items->function(runtime, input, {}));
  return MakeList(runtime, list.list()->items, List::Flavor::kGenerator);
}

absl::StatusOr<Value> Reverse(Runtime& runtime, const Value& input, const Arguments& arguments) {
  RETURN_IF_ERROR(Bind(arguments, {}).status());
  if (input.text() != nullptr) {
    return GetSlice(runtime, input, {.start = {}, .stop = {}, .step = Value(int64_t{-1})});
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<const List> list, Iterate(runtime, input));
  return MakeList(runtime, {list->items.rbegin(), list->items.rend()}, List::Flavor::kGenerator);
}

// What an item is ordered or told apart by.
absl::StatusOr<Value> KeyOf(Runtime& runtime, const Value& item, const Value* attribute,
                            const Value* case_sensitive) {
  ASSIGN_OR_RETURN(Value key, Follow(runtime, item, attribute));
  if (key.text() != nullptr && (case_sensitive == nullptr || !IsTrue(*case_sensitive))) {
    return MakeText(runtime, ChangeCase(*key.text(), Case::kLower));
  }
  return key;
}

absl::StatusOr<Value> SortFilter(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound,
                   Bind(arguments, {"reverse", "case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(const std::shared_ptr<const List> list, Iterate(runtime, input));
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : list->items) {
    ASSIGN_OR_RETURN(Value key, KeyOf(runtime, item, bound[2], bound[1]));
    keyed.emplace_back(std::move(key), item);
  }
  const bool reverse = bound[0] != nullptr && IsTrue(*bound[0]);
  absl::Status failure;
  const auto before = [&](const auto& left, const auto& right) {
    if (!failure.ok()) {
      return false;
    }
    const absl::StatusOr<int> order =
        reverse ? Order(runtime, right.first, left.first) : Order(runtime, left.first, right.first);
    if (!order.ok()) {
      failure = order.status();
      return false;
    }
    return *order < 0;
  };
  std::stable_sort(keyed.begin(), keyed.end(), before);
  RETURN_IF_ERROR(failure);
  std::vector<Value> sorted;
  for (auto& [key, item] : keyed) {
    sorted.push_back(std::move(item));
  }
  return MakeList(runtime, std::move(sorted));
}

absl::StatusOr<Value> Unique(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(const std::shared_ptr<const List> list, Iterate(runtime, input));
  std::vector<Value> keys;
  std::vector<Value> unique;
  for (const Value& item : list->items) {
    ASSIGN_OR_RETURN(Value key, KeyOf(runtime, item, bound[1], bound[0]));
    if (key.dict() || (key.list() && key.list()->flavor == List::Flavor::kList)) {
      return WrongType(key, "is unhashable");
    }
    bool seen = false;
    for (size_t i = 0; i < keys.size() && !seen; ++i) {
      ASSIGN_OR_RETURN(seen, Equal(runtime, keys[i], key));
    }
    if (!seen) {
      keys.push_back(std::move(key));
      unique.push_back(item);
    }
  }
  return MakeList(runtime, std::move(unique), List::Flavor::kGenerator);
}

absl::StatusOr<Value> Sum(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"attribute", "start"}));
  ASSIGN_OR_RETURN(const std::shared_ptr<const List> list, Iterate(runtime, input));
  Value sum = bound[1] != nullptr ? *bound[1] : Value(int64_t{0});
  for (const Value& item : list->items) {
    ASSIGN_OR_RETURN(const Value value, Follow(runtime, item, bound[0]));
    ASSIGN_OR_RETURN(sum, Compute(runtime, Arithmetic::kAdd, sum, value));
  }
  return sum;
}

constexpr NativeEntry kFilters[] = {
    {"map", &MapFilter},
    {"select", &Select<false, true>},
    {"reject", &Select<false, false>},
    {"selectattr", &Select<true, true>},
    {"rejectattr", &Select<true, false>},
    {"join", &Join},
    {"first", &End<true>},
    {"last", &End<false>},
    {"list", &ListFilter},
    {"items", &Items},
    {"reverse", &Reverse},
    {"sort", &SortFilter},
    {"unique", &Unique},
    {"sum", &Sum},
};

}  // namespace

absl::Span<const NativeEntry> SequenceFilters() { return kFilters; }

}  // namespace tandem::jinja
