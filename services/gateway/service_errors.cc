#include "services/gateway/service_errors.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/rpc/status_convert.h"

namespace tandem::gateway {
namespace {

constexpr absl::Duration kRetryDelay = absl::Seconds(1);

const char* FieldOfInput(const v1::GenerateRequest& request) {
  if (request.has_chat()) return "chat";
  return request.has_token_ids() ? "token_ids" : "prompt";
}

}  // namespace

absl::Status StartingError() {
  return rpc::WithDetails(absl::UnavailableError("the server is starting: try again soon"),
                          {.reason = "STARTING", .retry_delay = kRetryDelay});
}

absl::Status DrainingError() {
  return rpc::WithDetails(
      absl::UnavailableError("the server is draining: it takes no new requests"),
      {.reason = "DRAINING", .retry_delay = kRetryDelay});
}

absl::Status CheckModelName(const std::string& name, const std::string& served) {
  if (name.empty() || name == served) return absl::OkStatus();
  return rpc::WithDetails(
      absl::NotFoundError(absl::StrCat("there is no model '", name.substr(0, 128),
                                       "' here; the one that is served is '", served, "'")),
      {.reason = "MODEL_NOT_FOUND", .metadata = {{"served_model", served}}});
}

absl::Status CheckPromptLength(const v1::GenerateRequest& request, int64_t num_prompt_tokens,
                               int32_t context_length) {
  const char* field = FieldOfInput(request);
  std::string problem;
  if (num_prompt_tokens == 0) problem = "has no tokens";
  if (num_prompt_tokens >= context_length) {
    problem = absl::StrCat("has ", num_prompt_tokens, " tokens, prompt and output together ",
                           "have room for ", context_length,
                           ": shorten it, or serve with more --ctx or --kv-tokens");
  }
  if (problem.empty()) return absl::OkStatus();
  return rpc::WithDetails(absl::InvalidArgumentError(absl::StrCat(field, " ", problem)),
                          {.reason = num_prompt_tokens == 0 ? "INVALID_FIELD" : "PROMPT_TOO_LONG",
                           .metadata = {{"limit", absl::StrCat(context_length)},
                                        {"got", absl::StrCat(num_prompt_tokens)}},
                           .field_violations = {{field, problem}}});
}

absl::Status WithRetry(absl::Status status, absl::Duration delay) {
  const bool may_retry = absl::IsUnavailable(status) || absl::IsResourceExhausted(status);
  rpc::ErrorDetails details = rpc::DetailsOf(status);
  if (!may_retry || details.retry_delay > absl::ZeroDuration()) return status;
  if (details.reason.empty()) {
    details.reason = absl::IsUnavailable(status) ? "WORKER_LOST" : "OVERLOADED";
  }
  details.retry_delay = delay;
  return rpc::WithDetails(std::move(status), details);
}

}  // namespace tandem::gateway
