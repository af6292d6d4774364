// Global functions: range, dict, namespace, raise_exception, strftime_now.
#pragma once

#include <string_view>

#include "common/chat_template/value.h"

namespace tandem::jinja {

// nullptr when there is none of that name.
const NativeEntry* FindFunction(std::string_view name);

// Fails with its argument as the message.
absl::StatusOr<Value> RaiseException(Runtime& runtime, const Value& self,
                                     const Arguments& arguments);

}  // namespace tandem::jinja
