#include "common/chat_template/value.h"

#include <algorithm>

namespace tandem::jinja {

Value::Value() = default;
Value::Value(bool flag) : rep_(flag) {}
Value::Value(int64_t number) : rep_(number) {}
Value::Value(double number) : rep_(number) {}
Value::Value(std::shared_ptr<const Text> text) : rep_(std::move(text)) {}
Value::Value(std::shared_ptr<const List> list) : rep_(std::move(list)) {}
Value::Value(std::shared_ptr<const Dict> dict) : rep_(std::move(dict)) {}
Value::Value(std::shared_ptr<const Loop> loop) : rep_(std::move(loop)) {}
Value::Value(std::shared_ptr<const Callable> callable) : rep_(std::move(callable)) {}
Value::Value(Namespace* attributes) : rep_(attributes) {}
Value::Value(const Value& other) = default;
Value::Value(Value&& other) noexcept = default;
Value& Value::operator=(const Value& other) = default;
Value& Value::operator=(Value&& other) noexcept = default;
Value::~Value() = default;

Value Value::OfText(std::string_view bytes) { return Value(std::make_shared<const Text>(bytes)); }

Value Value::MakeUndefined(std::string reason) {
  Value value;
  value.rep_ = Undefined{std::make_shared<const std::string>(std::move(reason))};
  return value;
}

Namespace* Value::attributes() const {
  const auto* pointer = std::get_if<Namespace*>(&rep_);
  return pointer == nullptr ? nullptr : *pointer;
}

std::shared_ptr<const List> Value::shared_list() const {
  const auto* pointer = std::get_if<std::shared_ptr<const List>>(&rep_);
  return pointer == nullptr ? nullptr : *pointer;
}

const char* Value::TypeName() const {
  if (const List* items = list()) {
    return items->flavor == List::Flavor::kList    ? "list"
           : items->flavor == List::Flavor::kTuple ? "tuple"
                                                   : "generator";
  }
  return is_none()        ? "NoneType"
         : is_undefined() ? "Undefined"
         : boolean()      ? "bool"
         : integer()      ? "int"
         : real()         ? "float"
         : text()         ? "str"
         : dict()         ? "dict"
         : loop()         ? "loop"
         : callable()     ? "function"
                          : "Namespace";
}

int Value::depth() const {
  if (const List* items = list()) {
    return items->depth;
  }
  if (const Dict* items = dict()) {
    return items->depth;
  }
  if (const Loop* state = loop()) {
    return state->items->depth + 1;
  }
  if (const Callable* function = callable()) {
    return function->self.depth() + 1;
  }
  return 0;
}

}  // namespace tandem::jinja
