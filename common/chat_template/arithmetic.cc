// Compute and Negate.
#include <cmath>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/chat_template/operators.h"

namespace tandem::jinja {
namespace {

const char* Symbol(Arithmetic op) {
  constexpr const char* kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};
  return kSymbols[static_cast<int>(op)];
}

absl::Status Unsupported(Arithmetic op, const Value& left, const Value& right) {
  for (const Value* operand : {&left, &right}) {
    if (operand->is_undefined()) {
      return Fail(operand->reason());
    }
  }
  return Fail(absl::StrFormat("unsupported operand types for %s: '%s' and '%s'", Symbol(op),
                              left.TypeName(), right.TypeName()));
}

absl::Status Overflow() { return Fail("a number leaves the range of 64 bits"); }

absl::StatusOr<int64_t> Power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) {
      return Overflow();
    }
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) {
      return Overflow();
    }
  }
  return result;
}

absl::StatusOr<Value> Integers(Arithmetic op, int64_t left, int64_t right) {
  int64_t result = 0;
  bool overflow = false;
  switch (op) {
    case Arithmetic::kAdd:
      overflow = __builtin_add_overflow(left, right, &result);
      break;
    case Arithmetic::kSubtract:
      overflow = __builtin_sub_overflow(left, right, &result);
      break;
    case Arithmetic::kMultiply:
      overflow = __builtin_mul_overflow(left, right, &result);
      break;
    case Arithmetic::kFloorDivide:
    case Arithmetic::kModulo: {
      if (right == 0) {
        return Fail("integer division or modulo by zero");
      }
      if (right == -1) {  // INT64_MIN / -1 traps
        overflow = __builtin_sub_overflow(0, left, &result);
        result = op == Arithmetic::kModulo ? 0 : result;
        overflow = overflow && op != Arithmetic::kModulo;
        break;
      }
      const int64_t remainder = left % right;
      const bool round_down = remainder != 0 && (remainder < 0) != (right < 0);
      result = op == Arithmetic::kModulo ? remainder + (round_down ? right : 0)
                                         : left / right - (round_down ? 1 : 0);
      break;
    }
    default: {
      ASSIGN_OR_RETURN(result, Power(left, right));
    }
  }
  if (overflow) {
    return Overflow();
  }
  return Value(result);
}

absl::StatusOr<Value> Reals(Arithmetic op, double left, double right) {
  const bool divides =
      op == Arithmetic::kDivide || op == Arithmetic::kFloorDivide || op == Arithmetic::kModulo;
  if (divides && right == 0) {
    return Fail("division by zero");
  }
  switch (op) {
    case Arithmetic::kAdd:
      return Value(left + right);
    case Arithmetic::kSubtract:
      return Value(left - right);
    case Arithmetic::kMultiply:
      return Value(left * right);
    case Arithmetic::kDivide:
      return Value(left / right);
    case Arithmetic::kFloorDivide:
      return Value(std::floor(left / right));
    case Arithmetic::kModulo: {
      const double remainder = std::fmod(left, right);
      return Value(remainder != 0 && (remainder < 0) != (right < 0) ? remainder + right
                                                                    : remainder);
    }
    case Arithmetic::kPower:
      break;
  }
  const double power = std::pow(left, right);
  if (!std::isfinite(power)) {
    return Fail("a power is out of range");
  }
  return Value(power);
}

absl::StatusOr<Value> Repeat(Runtime& runtime, const Value& sequence, int64_t times) {
  times = std::max<int64_t>(times, 0);
  if (const Text* text = sequence.text()) {
    if (text->empty() || times == 0) {
      return Value::OfText("");
    }
    if (times > kMaxStringBytes / text->size()) {
      return Fail(absl::StrFormat("a string of %d times %d bytes, at most %d", times, text->size(),
                                  kMaxStringBytes));
    }
    Text repeated;
    for (int64_t i = 0; i < times; ++i) {
      repeated.Append(*text);
    }
    return MakeText(runtime, std::move(repeated));
  }
  const List& list = *sequence.list();
  const auto count = static_cast<int64_t>(list.items.size());
  if (count > 0 && times > kMaxListItems / count) {
    return Fail(
        absl::StrFormat("a list of %d times %d items, at most %d", times, count, kMaxListItems));
  }
  std::vector<Value> items;
  for (int64_t i = 0; i < times && count > 0; ++i) {
    items.insert(items.end(), list.items.begin(), list.items.end());
  }
  return MakeList(runtime, std::move(items), list.flavor);
}

bool IsSequence(const Value& value) {
  return value.text() != nullptr ||
         (value.list() != nullptr && value.list()->flavor != List::Flavor::kGenerator);
}

}  // namespace

absl::StatusOr<Value> Compute(Runtime& runtime, Arithmetic op, const Value& left,
                              const Value& right) {
  if (left.is_number() && right.is_number()) {
    const bool integers = left.real() == nullptr && right.real() == nullptr;
    const bool stays_integer = integers && op != Arithmetic::kDivide &&
                               (op != Arithmetic::kPower || right.AsInteger() >= 0);
    return stays_integer ? Integers(op, left.AsInteger(), right.AsInteger())
                         : Reals(op, left.AsReal(), right.AsReal());
  }
  if (op == Arithmetic::kAdd && left.text() && right.text()) {
    Text sum = *left.text();
    sum.Append(*right.text());
    return MakeText(runtime, std::move(sum));
  }
  if (op == Arithmetic::kAdd && left.list() && right.list() && IsSequence(left) &&
      left.list()->flavor == right.list()->flavor) {
    std::vector<Value> items = left.list()->items;
    items.insert(items.end(), right.list()->items.begin(), right.list()->items.end());
    return MakeList(runtime, std::move(items), left.list()->flavor);
  }
  if (op == Arithmetic::kMultiply) {
    if (IsSequence(left) && (right.integer() || right.boolean())) {
      return Repeat(runtime, left, right.AsInteger());
    }
    if (IsSequence(right) && (left.integer() || left.boolean())) {
      return Repeat(runtime, right, left.AsInteger());
    }
  }
  return Unsupported(op, left, right);
}

absl::StatusOr<Value> Negate(const Value& operand) {
  if (operand.real()) {
    return Value(-*operand.real());
  }
  if (operand.is_number()) {
    return Integers(Arithmetic::kSubtract, 0, operand.AsInteger());
  }
  return WrongType(operand, "cannot be negated");
}

}  // namespace tandem::jinja
