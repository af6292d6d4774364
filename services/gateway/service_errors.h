// Errors of calls, with the details that tell clients what to do.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tandem/gateway/v1/gateway.pb.h"

namespace tandem::gateway {

// UNAVAILABLE with RetryInfo.
absl::Status StartingError();
absl::Status DrainingError();

// NOT_FOUND unless `name` is empty or the served model's.
absl::Status CheckModelName(const std::string& name, const std::string& served);

// INVALID_ARGUMENT with the numbers when there is no room for output.
absl::Status CheckPromptLength(const v1::GenerateRequest& request, int64_t num_prompt_tokens,
                               int32_t context_length);

// Adds a RetryInfo where a retry makes sense, unless the status has details already.
absl::Status WithRetry(absl::Status status, absl::Duration delay = absl::Seconds(1));

}  // namespace tandem::gateway
