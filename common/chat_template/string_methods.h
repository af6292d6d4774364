// The methods of strings.
#pragma once

#include "absl/types/span.h"
#include "common/chat_template/value.h"

namespace tandem::jinja {

absl::Span<const NativeEntry> StringMethods();

}  // namespace tandem::jinja
