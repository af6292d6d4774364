// The filters of `value | name(arguments)`.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/chat_template/runtime.h"
#include "common/chat_template/value.h"

namespace tandem::jinja {

// FAILED_PRECONDITION when there is no such filter, or it does not apply.
absl::StatusOr<Value> ApplyFilter(Runtime& runtime, std::string_view name, const Value& input,
                                  const Arguments& arguments);

// Those of filters.cc change one value, those of sequence_filters.cc go over many.
absl::Span<const NativeEntry> ValueFilters();
absl::Span<const NativeEntry> SequenceFilters();

}  // namespace tandem::jinja
