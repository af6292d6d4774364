#include "services/gateway/validation.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "common/rpc/status_convert.h"
#include "services/gateway/request_limits.h"

namespace tandem::gateway {
namespace {

// A number with its range. NaN is in no range.
struct NumberRule {
  const char* field;
  double value;
  double min;
  double max;
  bool excludes_min = false;
  bool excludes_max = false;
};

// Whole numbers as such: not 2.14748e+09.
std::string Text(double value) {
  constexpr double kExact = 9e15;
  const bool is_whole = std::abs(value) < kExact && value == std::floor(value);
  return is_whole ? absl::StrCat(static_cast<int64_t>(value)) : absl::StrCat(value);
}

absl::Status Check(const NumberRule& rule) {
  const bool above = rule.excludes_min ? rule.value > rule.min : rule.value >= rule.min;
  const bool below = rule.excludes_max ? rule.value < rule.max : rule.value <= rule.max;
  if (above && below) return absl::OkStatus();
  return InvalidField(rule.field, absl::StrCat("is ", Text(rule.value), ", must be in ",
                                               rule.excludes_min ? "(" : "[", Text(rule.min), ", ",
                                               Text(rule.max), rule.excludes_max ? ")" : "]"));
}

absl::Status CheckTokenId(const std::string& field, int32_t id, int32_t vocab_size) {
  if (id >= 0 && id < vocab_size) return absl::OkStatus();
  return InvalidField(
      field, absl::StrCat("is ", id, ", token ids of this model are in [0, ", vocab_size, ")"));
}

template <class Ids>
absl::Status CheckTokenIds(const std::string& field, const Ids& ids, int32_t vocab_size) {
  for (int i = 0; i < ids.size(); ++i) {
    RETURN_IF_ERROR(CheckTokenId(absl::StrCat(field, "[", i, "]"), ids[i], vocab_size));
  }
  return absl::OkStatus();
}

absl::Status CheckCount(const std::string& field, int64_t count, int64_t max) {
  if (count <= max) return absl::OkStatus();
  return InvalidField(field, absl::StrCat("has ", count, " entries, at most ", max));
}

absl::Status Check(const v1::Chat& chat) {
  if (chat.messages().empty()) return InvalidField("chat.messages", "is empty");
  RETURN_IF_ERROR(CheckCount("chat.messages", chat.messages_size(), kMaxChatMessages));
  for (int i = 0; i < chat.messages_size(); ++i) {
    const size_t bytes = chat.messages(i).role().size();
    if (bytes >= 1 && bytes <= kMaxRoleBytes) continue;
    return InvalidField(absl::StrCat("chat.messages[", i, "].role"),
                        absl::StrCat("has ", bytes, " bytes, must have 1 to ", kMaxRoleBytes));
  }
  return absl::OkStatus();
}

absl::Status CheckInput(const v1::GenerateRequest& request, int32_t vocab_size) {
  switch (request.input_case()) {
    case v1::GenerateRequest::kPrompt:
      if (request.prompt().empty()) return InvalidField("prompt", "is empty");
      return absl::OkStatus();
    case v1::GenerateRequest::kTokenIds:
      if (request.token_ids().ids().empty()) return InvalidField("token_ids.ids", "is empty");
      return CheckTokenIds("token_ids.ids", request.token_ids().ids(), vocab_size);
    case v1::GenerateRequest::kChat:
      return Check(request.chat());
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return InvalidField("input", "is not set: give a prompt, token_ids or a chat");
}

absl::Status Check(const v1::Sampling& sampling, int32_t vocab_size) {
  const NumberRule rules[] = {
      {"sampling.temperature", sampling.temperature(), 0, 100},
      {"sampling.top_k", static_cast<double>(sampling.top_k()), 0, 2147483647},
      {"sampling.top_p", sampling.has_top_p() ? sampling.top_p() : 1.0, 0, 1, true},
      {"sampling.min_p", sampling.min_p(), 0, 1, false, true},
      {"sampling.repetition_penalty",
       sampling.has_repetition_penalty() ? sampling.repetition_penalty() : 1.0, 0, 10, true},
      {"sampling.presence_penalty", sampling.presence_penalty(), -2, 2},
      {"sampling.frequency_penalty", sampling.frequency_penalty(), -2, 2},
  };
  for (const NumberRule& rule : rules) RETURN_IF_ERROR(Check(rule));
  RETURN_IF_ERROR(
      CheckCount("sampling.logit_bias", sampling.logit_bias().size(), kMaxLogitBiasEntries));
  for (const auto& [id, bias] : sampling.logit_bias()) {
    const std::string field = absl::StrCat("sampling.logit_bias[", id, "]");
    RETURN_IF_ERROR(CheckTokenId("sampling.logit_bias: token id", id, vocab_size));
    RETURN_IF_ERROR(Check(NumberRule{field.c_str(), bias, -100, 100}));
  }
  return absl::OkStatus();
}

absl::Status Check(const v1::Stopping& stopping, int32_t vocab_size) {
  const NumberRule rules[] = {
      {"stopping.max_tokens", static_cast<double>(stopping.max_tokens()), 0, 2147483647},
      {"stopping.min_tokens", static_cast<double>(stopping.min_tokens()), 0, 2147483647},
  };
  for (const NumberRule& rule : rules) RETURN_IF_ERROR(Check(rule));
  if (stopping.max_tokens() > 0 && stopping.min_tokens() > stopping.max_tokens()) {
    return InvalidField("stopping.min_tokens",
                        absl::StrCat("is ", stopping.min_tokens(), ", more than max_tokens, ",
                                     stopping.max_tokens()));
  }
  RETURN_IF_ERROR(CheckCount("stopping.stop", stopping.stop_size(), kMaxStopStrings));
  for (int i = 0; i < stopping.stop_size(); ++i) {
    const size_t bytes = stopping.stop(i).size();
    if (bytes >= 1 && bytes <= kMaxStopBytes) continue;
    return InvalidField(absl::StrCat("stopping.stop[", i, "]"),
                        absl::StrCat("has ", bytes, " bytes, must have 1 to ", kMaxStopBytes));
  }
  RETURN_IF_ERROR(
      CheckCount("stopping.stop_token_ids", stopping.stop_token_ids_size(), kMaxStopTokenIds));
  return CheckTokenIds("stopping.stop_token_ids", stopping.stop_token_ids(), vocab_size);
}

absl::Status Check(const v1::Speculation& speculation) {
  if (!v1::Mode_IsValid(speculation.mode())) {
    return InvalidField("speculation.mode",
                        absl::StrCat("is ", speculation.mode(), ", which is no Mode"));
  }
  if (!v1::Rule_IsValid(speculation.rule())) {
    return InvalidField("speculation.rule",
                        absl::StrCat("is ", speculation.rule(), ", which is no Rule"));
  }
  return Check(NumberRule{"speculation.draft_length",
                          static_cast<double>(speculation.draft_length()), 0, kMaxDraftLength});
}

absl::Status CheckRequestId(const std::string& id) {
  if (id.size() > kMaxRequestIdBytes) {
    return InvalidField("request_id",
                        absl::StrCat("has ", id.size(), " bytes, at most ", kMaxRequestIdBytes));
  }
  for (const char c : id) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return InvalidField("request_id", "has a control character");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status InvalidField(const std::string& field, const std::string& problem) {
  return rpc::WithDetails(absl::InvalidArgumentError(absl::StrCat(field, " ", problem)),
                          {.reason = "INVALID_FIELD",
                           .metadata = {{"field", field}},
                           .field_violations = {{field, problem}}});
}

absl::Status Validate(const v1::GenerateRequest& request, int32_t vocab_size) {
  RETURN_IF_ERROR(CheckInput(request, vocab_size));
  RETURN_IF_ERROR(Check(request.sampling(), vocab_size));
  RETURN_IF_ERROR(Check(request.stopping(), vocab_size));
  RETURN_IF_ERROR(Check(request.speculation()));
  RETURN_IF_ERROR(
      Check(NumberRule{"output.top_logprobs", static_cast<double>(request.output().top_logprobs()),
                       0, kMaxTopLogprobs}));
  RETURN_IF_ERROR(Check(NumberRule{"priority", static_cast<double>(request.priority()),
                                   -kMaxPriority, kMaxPriority}));
  return CheckRequestId(request.request_id());
}

absl::Status Validate(const v1::TokenizeRequest& request) {
  if (request.has_chat()) return Check(request.chat());
  if (request.has_text()) return absl::OkStatus();
  return InvalidField("input", "is not set: give a text or a chat");
}

absl::Status Validate(const v1::DetokenizeRequest& request, int32_t vocab_size) {
  return CheckTokenIds("token_ids", request.token_ids(), vocab_size);
}

}  // namespace tandem::gateway
