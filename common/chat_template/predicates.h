// The tests of `value is name`.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "common/chat_template/runtime.h"
#include "common/chat_template/value.h"

namespace tandem::jinja {

// FAILED_PRECONDITION when there is no such test, or it does not apply.
absl::StatusOr<bool> ApplyTest(Runtime& runtime, std::string_view name, const Value& input,
                               const Arguments& arguments);

}  // namespace tandem::jinja
