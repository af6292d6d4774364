// Values of a template: Python's, as far as templates see them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "common/chat_template/text.h"

namespace tandem::jinja {

class Value;
struct Arguments;
struct Macro;
struct Runtime;

// A function or method written in C++. `self` is the object of a method.
using NativeFunction = absl::StatusOr<Value> (*)(Runtime& runtime, const Value& self,
                                                 const Arguments& arguments);

// A function in one of the tables; the name lives for ever.
struct NativeEntry {
  std::string_view name;
  NativeFunction function = nullptr;
};

struct List;
struct Dict;
struct Loop;
struct Callable;

// Attributes that a template may set; owned by the Runtime, so that a namespace that
// holds itself is freed all the same.
struct Namespace {
  std::map<std::string, Value, std::less<>> attributes;
};

// Small, cheap to copy: everything large is shared and immutable, but for namespaces.
// A value nests at most kMaxValueDepth deep, which MakeList and MakeDict see to.
class Value {
 public:
  struct Undefined {
    std::shared_ptr<const std::string> reason;  // for the error when it is used
  };
  struct None {};

  Value();  // None
  explicit Value(bool flag);
  explicit Value(int64_t number);
  explicit Value(double number);
  explicit Value(std::shared_ptr<const Text> text);
  explicit Value(std::shared_ptr<const List> list);
  explicit Value(std::shared_ptr<const Dict> dict);
  explicit Value(std::shared_ptr<const Loop> loop);
  explicit Value(std::shared_ptr<const Callable> callable);
  explicit Value(Namespace* attributes);
  static Value OfText(std::string_view bytes);
  static Value MakeUndefined(std::string reason);

  // Out of line: GCC 12 warns of uninitialized members when it inlines these.
  Value(const Value& other);
  Value(Value&& other) noexcept;
  Value& operator=(const Value& other);
  Value& operator=(Value&& other) noexcept;
  ~Value();

  bool is_undefined() const { return std::holds_alternative<Undefined>(rep_); }
  bool is_none() const { return std::holds_alternative<None>(rep_); }
  // nullptr for a value of another type.
  const bool* boolean() const { return std::get_if<bool>(&rep_); }
  const int64_t* integer() const { return std::get_if<int64_t>(&rep_); }
  const double* real() const { return std::get_if<double>(&rep_); }
  const Text* text() const { return Pointee<Text>(); }
  const List* list() const { return Pointee<List>(); }
  const Dict* dict() const { return Pointee<Dict>(); }
  const Loop* loop() const { return Pointee<Loop>(); }
  const Callable* callable() const { return Pointee<Callable>(); }
  Namespace* attributes() const;
  std::shared_ptr<const List> shared_list() const;
  // Why it is undefined. Requires is_undefined().
  const std::string& reason() const { return *std::get<Undefined>(rep_).reason; }

  bool is_number() const { return boolean() || integer() || real(); }
  // A bool or an integer. Requires one of the two.
  int64_t AsInteger() const { return boolean() ? (*boolean() ? 1 : 0) : *integer(); }
  // Requires is_number().
  double AsReal() const { return real() ? *real() : static_cast<double>(AsInteger()); }

  // As Python names it, for messages.
  const char* TypeName() const;
  // 0 for what holds no other values.
  int depth() const;

 private:
  template <typename T>
  const T* Pointee() const {
    const auto* pointer = std::get_if<std::shared_ptr<const T>>(&rep_);
    return pointer == nullptr ? nullptr : pointer->get();
  }

  std::variant<None, Undefined, bool, int64_t, double, std::shared_ptr<const Text>,
               std::shared_ptr<const List>, std::shared_ptr<const Dict>,
               std::shared_ptr<const Loop>, std::shared_ptr<const Callable>, Namespace*>
      rep_;
};

struct List {
  enum class Flavor { kList, kTuple, kGenerator };  // a generator: what map() and select() give
  std::vector<Value> items;
  Flavor flavor = Flavor::kList;
  int depth = 0;
};

struct Dict {
  std::vector<std::pair<Value, Value>> items;  // in order of insertion, keys unique
  int depth = 0;
};

// The variable `loop`. Its items never change, so it holds no loop that holds it.
struct Loop {
  std::shared_ptr<const List> items;
  int64_t index0 = 0;   // of the present item
  int64_t nesting = 1;  // loop.depth; recursive loops are not supported, so it stays 1
};

// Either `native` with its object, or a macro of the template.
struct Callable {
  std::string_view name;
  NativeFunction native = nullptr;
  Value self;
  const Macro* macro = nullptr;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> named;
};

}  // namespace tandem::jinja
