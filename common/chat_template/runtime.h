// What one rendering uses up, and the makers of everything that grows.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/chat_template/limits.h"
#include "common/chat_template/value.h"

namespace tandem::jinja {

// Counts steps and depth. Not thread-safe.
class Budget {
 public:
  // FAILED_PRECONDITION once the steps are used up.
  absl::Status Charge(int64_t steps) {
    return (steps_left_ -= steps) >= 0 ? absl::OkStatus() : OutOfSteps();
  }
  absl::Status ChargeBytes(int64_t bytes) { return Charge(bytes / kBytesPerStep); }

 private:
  static absl::Status OutOfSteps();

  int64_t steps_left_ = kMaxSteps;
};

// The state of one rendering besides its variables.
struct Runtime {
  Budget budget;
  absl::Time now;
  std::vector<std::unique_ptr<Namespace>> namespaces;
};

// FAILED_PRECONDITION.
absl::Status Fail(std::string message);
// "'int' object is not iterable", or the reason why an undefined value is undefined.
absl::Status WrongType(const Value& value, const char* problem);

// New values, paid for; FAILED_PRECONDITION past a limit.
absl::StatusOr<Value> MakeText(Runtime& runtime, Text text);
absl::StatusOr<Value> MakeList(Runtime& runtime, std::vector<Value> items,
                               List::Flavor flavor = List::Flavor::kList);
// A later item of an equal key replaces the value of the earlier one.
absl::StatusOr<Value> MakeDict(Runtime& runtime, std::vector<std::pair<Value, Value>> items);
Value MakeMethod(const NativeEntry& entry, Value self);

// Pays for reading the object and the arguments of a native function.
absl::Status ChargeForTexts(Runtime& runtime, const Value& self, const Arguments& arguments);

// The arguments of a call by the names of its parameters; nullptr where one was not
// given. FAILED_PRECONDITION for too many, unknown or doubled ones, and when one of the
// first `num_required` is missing.
using BoundArguments = absl::InlinedVector<const Value*, 4>;
absl::StatusOr<BoundArguments> Bind(const Arguments& arguments,
                                    std::initializer_list<std::string_view> parameters,
                                    size_t num_required = 0);

}  // namespace tandem::jinja
