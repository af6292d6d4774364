// Truth, equality, order and membership.
#include <string.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/chat_template/operators.h"

namespace tandem::jinja {
namespace {

template <typename T>
int Sign(const T& left, const T& right) {
  return left < right ? -1 : right < left ? 1 : 0;
}

// The order of two numbers; 1, and so not equal, where there is none. Integers are not
// made doubles, which lose those above 2^53.
int OrderNumbers(const Value& left, const Value& right) {
  if (left.real() && right.real()) {
    return *left.real() == *right.real() ? 0 : *left.real() < *right.real() ? -1 : 1;
  }
  if (right.real()) {
    return -OrderNumbers(right, left);
  }
  if (!left.real()) {
    return Sign(left.AsInteger(), right.AsInteger());
  }
  constexpr double kTwoTo63 = 9223372036854775808.0;
  const double real = *left.real();
  if (!(real >= -kTwoTo63 && real < kTwoTo63)) {
    return real < 0 ? -1 : 1;
  }
  const auto whole = static_cast<int64_t>(real);  // rounds to zero
  const int order = Sign(whole, right.AsInteger());
  return order != 0 ? order : Sign(real, static_cast<double>(whole));
}

absl::StatusOr<bool> EqualLists(Runtime& runtime, const List& left, const List& right) {
  if (left.flavor != right.flavor || left.items.size() != right.items.size()) {
    return false;
  }
  for (size_t i = 0; i < left.items.size(); ++i) {
    ASSIGN_OR_RETURN(const bool equal, Equal(runtime, left.items[i], right.items[i]));
    if (!equal) {
      return false;
    }
  }
  return true;
}

absl::StatusOr<bool> EqualDicts(Runtime& runtime, const Dict& left, const Dict& right) {
  if (left.items.size() != right.items.size()) {
    return false;
  }
  for (const auto& [key, value] : left.items) {
    ASSIGN_OR_RETURN(const Value* other, FindInDict(runtime, right, key));
    if (other == nullptr) {
      return false;
    }
    ASSIGN_OR_RETURN(const bool equal, Equal(runtime, value, *other));
    if (!equal) {
      return false;
    }
  }
  return true;
}

}  // namespace

bool IsTrue(const Value& value) {
  if (value.is_undefined() || value.is_none()) {
    return false;
  }
  if (value.is_number()) {
    return value.real() ? *value.real() != 0 : value.AsInteger() != 0;
  }
  if (const Text* text = value.text()) {
    return !text->empty();
  }
  if (const List* list = value.list()) {
    return list->flavor == List::Flavor::kGenerator || !list->items.empty();
  }
  if (const Dict* dict = value.dict()) {
    return !dict->items.empty();
  }
  return true;
}

absl::StatusOr<bool> Equal(Runtime& runtime, const Value& left, const Value& right) {
  RETURN_IF_ERROR(runtime.budget.Charge(1));
  if (left.is_number() && right.is_number()) {
    return OrderNumbers(left, right) == 0;
  }
  if (left.text() && right.text()) {
    if (left.text()->size() != right.text()->size()) {
      return false;
    }
    RETURN_IF_ERROR(runtime.budget.ChargeBytes(left.text()->size()));
    return left.text()->bytes() == right.text()->bytes();
  }
  if (left.list() && right.list()) {
    return left.list() == right.list() ? true : EqualLists(runtime, *left.list(), *right.list());
  }
  if (left.dict() && right.dict()) {
    return left.dict() == right.dict() ? true : EqualDicts(runtime, *left.dict(), *right.dict());
  }
  return (left.is_none() && right.is_none()) || (left.is_undefined() && right.is_undefined()) ||
         (left.loop() && left.loop() == right.loop()) ||
         (left.attributes() && left.attributes() == right.attributes()) ||
         (left.callable() && right.callable() && left.callable()->macro != nullptr &&
          left.callable()->macro == right.callable()->macro);
}

absl::StatusOr<int> Order(Runtime& runtime, const Value& left, const Value& right) {
  RETURN_IF_ERROR(runtime.budget.Charge(1));
  if (left.is_number() && right.is_number()) {
    return OrderNumbers(left, right);
  }
  if (left.text() && right.text()) {
    RETURN_IF_ERROR(
        runtime.budget.ChargeBytes(std::min(left.text()->size(), right.text()->size())));
    // The order of UTF-8 bytes is that of code points.
    return left.text()->bytes().compare(right.text()->bytes());
  }
  if (left.list() && right.list() && left.list()->flavor == right.list()->flavor &&
      left.list()->flavor != List::Flavor::kGenerator) {
    const auto& a = left.list()->items;
    const auto& b = right.list()->items;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
      ASSIGN_OR_RETURN(const bool equal, Equal(runtime, a[i], b[i]));
      if (!equal) {
        return Order(runtime, a[i], b[i]);
      }
    }
    return Sign(a.size(), b.size());
  }
  for (const Value* operand : {&left, &right}) {
    if (operand->is_undefined()) {
      return Fail(operand->reason());
    }
  }
  return Fail(absl::StrFormat("'%s' and '%s' have no order", left.TypeName(), right.TypeName()));
}

absl::StatusOr<bool> Contains(Runtime& runtime, const Value& container, const Value& item) {
  if (const Text* text = container.text()) {
    if (item.text() == nullptr) {
      return WrongType(item, "cannot be in a string");
    }
    RETURN_IF_ERROR(runtime.budget.ChargeBytes(text->size() + item.text()->size()));
    // memmem is linear whatever the two texts are; std::string::find is not.
    return memmem(text->bytes().data(), text->bytes().size(), item.text()->bytes().data(),
                  item.text()->bytes().size()) != nullptr;
  }
  if (const Dict* dict = container.dict()) {
    ASSIGN_OR_RETURN(const Value* value, FindInDict(runtime, *dict, item));
    return value != nullptr;
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<const List> list, Iterate(runtime, container));
  for (const Value& member : list->items) {
    ASSIGN_OR_RETURN(const bool equal, Equal(runtime, member, item));
    if (equal) {
      return true;
    }
  }
  return false;
}

absl::StatusOr<const Value*> FindInDict(Runtime& runtime, const Dict& dict, const Value& key) {
  for (const auto& [candidate, value] : dict.items) {
    ASSIGN_OR_RETURN(const bool equal, Equal(runtime, candidate, key));
    if (equal) {
      return &value;
    }
  }
  return nullptr;
}

}  // namespace tandem::jinja
