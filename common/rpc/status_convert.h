// absl::Status on this side of the wire, grpc::Status with google.rpc details on the other.
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"

namespace tandem::rpc {

// What goes along with an error, as AIP-193 wants it.
struct ErrorDetails {
  // ErrorInfo: UPPER_SNAKE_CASE, stable; empty takes the name of the code.
  std::string reason;
  std::vector<std::pair<std::string, std::string>> metadata;
  // BadRequest: path of the field, "sampling.top_p", and what is wrong with it.
  std::vector<std::pair<std::string, std::string>> field_violations;
  // RetryInfo; zero: none.
  absl::Duration retry_delay = absl::ZeroDuration();
};

// The domain of every ErrorInfo.
inline constexpr char kErrorDomain[] = "tandem";

// Attaches details to an error; they cross the wire with ToGrpcStatus. One set a status.
absl::Status WithDetails(absl::Status status, const ErrorDetails& details);
// What WithDetails attached; empty details without.
ErrorDetails DetailsOf(const absl::Status& status);

// An error always carries an ErrorInfo. Code and message are the same on both sides.
grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

// "INVALID_ARGUMENT" and so on.
std::string CodeName(grpc::StatusCode code);

std::chrono::system_clock::time_point DeadlineAfter(absl::Duration timeout);

}  // namespace tandem::rpc
