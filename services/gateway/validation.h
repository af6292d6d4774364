// What clients send, checked before anything is done with it. Pure.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "tandem/gateway/v1/gateway.pb.h"

namespace tandem::gateway {

// INVALID_ARGUMENT naming the first field that is wrong, its value and what it may be, with
// BadRequest details. `vocab_size`: token ids are in [0, vocab_size).
absl::Status Validate(const v1::GenerateRequest& request, int32_t vocab_size);
absl::Status Validate(const v1::TokenizeRequest& request);
absl::Status Validate(const v1::DetokenizeRequest& request, int32_t vocab_size);

// The same error for what other code finds wrong with a field.
absl::Status InvalidField(const std::string& field, const std::string& problem);

}  // namespace tandem::gateway
