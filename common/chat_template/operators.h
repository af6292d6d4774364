// Python's operators on template values. All errors are FAILED_PRECONDITION.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/chat_template/runtime.h"
#include "common/chat_template/value.h"

namespace tandem::jinja {

enum class Arithmetic { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };

// `left op right`: numbers, and + and * of strings and lists. An integer that leaves 64
// bits is an error.
absl::StatusOr<Value> Compute(Runtime& runtime, Arithmetic op, const Value& left,
                              const Value& right);
absl::StatusOr<Value> Negate(const Value& operand);

bool IsTrue(const Value& value);
absl::StatusOr<bool> Equal(Runtime& runtime, const Value& left, const Value& right);
// Negative, zero or positive, for what Python orders: numbers, strings, lists.
absl::StatusOr<int> Order(Runtime& runtime, const Value& left, const Value& right);
// `item in container`.
absl::StatusOr<bool> Contains(Runtime& runtime, const Value& container, const Value& item);

// What `for` goes over; charged for what has to be built.
absl::StatusOr<std::shared_ptr<const List>> Iterate(Runtime& runtime, const Value& value);
// Items, or characters of a string.
absl::StatusOr<int64_t> Length(Runtime& runtime, const Value& value);

// `object.name` and `object[index]`; undefined where there is none.
absl::StatusOr<Value> GetAttribute(Runtime& runtime, const Value& object, std::string_view name);
absl::StatusOr<Value> GetItem(Runtime& runtime, const Value& object, const Value& index);
// `object[start:stop:step]`, any of them None.
struct SliceBounds {
  Value start;
  Value stop;
  Value step;
};
absl::StatusOr<Value> GetSlice(Runtime& runtime, const Value& object, const SliceBounds& bounds);

// The value of a key; nullptr without it.
absl::StatusOr<const Value*> FindInDict(Runtime& runtime, const Dict& dict, const Value& key);

}  // namespace tandem::jinja
