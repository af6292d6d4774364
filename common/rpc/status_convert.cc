#include "common/rpc/status_convert.h"

#include "absl/strings/cord.h"
#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace tandem::rpc {
namespace {

// Key of the payload; the type of what is in it.
constexpr char kPayloadUrl[] = "type.googleapis.com/google.rpc.Status";

std::string Serialize(const absl::Status& status, const ErrorDetails& details) {
  google::rpc::Status message;
  message.set_code(static_cast<int>(status.code()));
  message.set_message(std::string(status.message()));
  google::rpc::ErrorInfo info;
  info.set_reason(details.reason.empty() ? CodeName(static_cast<grpc::StatusCode>(status.code()))
                                         : details.reason);
  info.set_domain(kErrorDomain);
  for (const auto& [key, value] : details.metadata) (*info.mutable_metadata())[key] = value;
  message.add_details()->PackFrom(info);
  if (!details.field_violations.empty()) {
    google::rpc::BadRequest bad;
    for (const auto& [field, description] : details.field_violations) {
      auto* violation = bad.add_field_violations();
      violation->set_field(field);
      violation->set_description(description);
    }
    message.add_details()->PackFrom(bad);
  }
  if (details.retry_delay > absl::ZeroDuration()) {
    google::rpc::RetryInfo retry;
    const int64_t nanos = absl::ToInt64Nanoseconds(details.retry_delay);
    retry.mutable_retry_delay()->set_seconds(nanos / 1'000'000'000);
    retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
    message.add_details()->PackFrom(retry);
  }
  return message.SerializeAsString();
}

ErrorDetails Parse(const std::string& bytes) {
  ErrorDetails details;
  google::rpc::Status message;
  if (!message.ParseFromString(bytes)) return details;
  for (const google::protobuf::Any& any : message.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    google::rpc::RetryInfo retry;
    if (any.UnpackTo(&info)) {
      details.reason = info.reason();
      details.metadata.assign(info.metadata().begin(), info.metadata().end());
    } else if (any.UnpackTo(&bad)) {
      for (const auto& violation : bad.field_violations()) {
        details.field_violations.emplace_back(violation.field(), violation.description());
      }
    } else if (any.UnpackTo(&retry)) {
      details.retry_delay = absl::Seconds(retry.retry_delay().seconds()) +
                            absl::Nanoseconds(retry.retry_delay().nanos());
    }
  }
  return details;
}

}  // namespace

absl::Status WithDetails(absl::Status status, const ErrorDetails& details) {
  if (!status.ok()) status.SetPayload(kPayloadUrl, absl::Cord(Serialize(status, details)));
  return status;
}

ErrorDetails DetailsOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadUrl);
  return payload.has_value() ? Parse(std::string(*payload)) : ErrorDetails();
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const auto payload = status.GetPayload(kPayloadUrl);
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
          payload.has_value() ? std::string(*payload) : Serialize(status, {})};
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  if (!status.ok() && !status.error_details().empty()) {
    result.SetPayload(kPayloadUrl, absl::Cord(status.error_details()));
  }
  return result;
}

std::string CodeName(grpc::StatusCode code) {
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
}

std::chrono::system_clock::time_point DeadlineAfter(absl::Duration timeout) {
  return absl::ToChronoTime(absl::Now() + timeout);
}

}  // namespace tandem::rpc
