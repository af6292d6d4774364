// Methods of strings, lists, dicts and `loop` that templates call.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "common/chat_template/runtime.h"
#include "common/chat_template/value.h"

namespace tandem::jinja {

// nullptr when objects of this type have no such method, or not for templates.
const NativeEntry* FindMethod(const Value& object, std::string_view name);

// str.replace(); `max_count` below zero for all.
absl::StatusOr<Value> ReplaceAll(Runtime& runtime, const Text& text, const Text& from,
                                 const Text& to, int64_t max_count);
// str.join() of the items' texts.
absl::StatusOr<Value> JoinAll(Runtime& runtime, const Text& separator, const List& list);

}  // namespace tandem::jinja
