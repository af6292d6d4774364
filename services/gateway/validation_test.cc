#include "services/gateway/validation.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "common/base/limits.h"
#include "common/rpc/status_convert.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/gateway/request_limits.h"

namespace tandem::gateway {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int32_t kVocabSize = 100;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

v1::GenerateRequest Good() {
  v1::GenerateRequest request;
  request.set_prompt("Hi");
  return request;
}

struct Case {
  const char* field;  // what the message must name
  std::function<void(v1::GenerateRequest&)> spoil;
};

void ExpectInvalid(const Case& test) {
  SCOPED_TRACE(test.field);
  v1::GenerateRequest request = Good();
  test.spoil(request);
  const absl::Status status = Validate(request, kVocabSize);
  ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(test.field));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("\n")));
  EXPECT_GT(status.message().size(), 10u);
  const rpc::ErrorDetails details = rpc::DetailsOf(status);
  EXPECT_EQ(details.reason, "INVALID_FIELD");
  ASSERT_EQ(details.field_violations.size(), 1u);
  EXPECT_THAT(details.field_violations[0].first, HasSubstr(test.field));
}

#define SPOIL(statement) [](v1::GenerateRequest& r) { statement; }

TEST(ValidationTest, BadSamplingIsNamed) {
  const Case cases[] = {
      {"temperature", SPOIL(r.mutable_sampling()->set_temperature(kNan))},
      {"temperature", SPOIL(r.mutable_sampling()->set_temperature(kInf))},
      {"temperature", SPOIL(r.mutable_sampling()->set_temperature(-1))},
      {"temperature", SPOIL(r.mutable_sampling()->set_temperature(1e9f))},
      {"top_k", SPOIL(r.mutable_sampling()->set_top_k(-1))},
      {"top_p", SPOIL(r.mutable_sampling()->set_top_p(0))},
      {"top_p", SPOIL(r.mutable_sampling()->set_top_p(1.5f))},
      {"top_p", SPOIL(r.mutable_sampling()->set_top_p(kNan))},
      {"min_p", SPOIL(r.mutable_sampling()->set_min_p(-0.1f))},
      {"min_p", SPOIL(r.mutable_sampling()->set_min_p(1.0f))},
      {"repetition_penalty", SPOIL(r.mutable_sampling()->set_repetition_penalty(0))},
      {"repetition_penalty", SPOIL(r.mutable_sampling()->set_repetition_penalty(kInf))},
      {"presence_penalty", SPOIL(r.mutable_sampling()->set_presence_penalty(3))},
      {"frequency_penalty", SPOIL(r.mutable_sampling()->set_frequency_penalty(-3))},
      {"logit_bias", SPOIL((*r.mutable_sampling()->mutable_logit_bias())[kVocabSize] = 1)},
      {"logit_bias", SPOIL((*r.mutable_sampling()->mutable_logit_bias())[-1] = 1)},
      {"logit_bias", SPOIL((*r.mutable_sampling()->mutable_logit_bias())[5] = 101)},
      {"logit_bias", SPOIL((*r.mutable_sampling()->mutable_logit_bias())[5] = kNan)},
  };
  for (const Case& test : cases) ExpectInvalid(test);
}

TEST(ValidationTest, BadInputIsNamed) {
  const Case cases[] = {
      {"input", SPOIL(r.clear_input())},
      {"prompt", SPOIL(r.set_prompt(std::string()))},
      {"token_ids", SPOIL(r.mutable_token_ids())},
      {"token_ids", SPOIL(r.mutable_token_ids()->add_ids(-1))},
      {"token_ids", SPOIL(r.mutable_token_ids()->add_ids(kVocabSize))},
      {"chat.messages", SPOIL(r.mutable_chat())},
      {"role", SPOIL(r.mutable_chat()->add_messages()->set_content("no role"))},
      {"role", SPOIL(r.mutable_chat()->add_messages()->set_role(std::string(65, 'x')))},
      {"request_id", SPOIL(r.set_request_id(std::string(129, 'x')))},
      {"request_id", SPOIL(r.set_request_id("a\nb"))},
  };
  for (const Case& test : cases) ExpectInvalid(test);
}

TEST(ValidationTest, BadStoppingSpeculationAndOutputAreNamed) {
  const Case cases[] = {
      {"max_tokens", SPOIL(r.mutable_stopping()->set_max_tokens(-1))},
      {"min_tokens", SPOIL(r.mutable_stopping()->set_min_tokens(-1))},
      {"min_tokens",
       SPOIL(r.mutable_stopping()->set_max_tokens(2); r.mutable_stopping()->set_min_tokens(3))},
      {"stop[0]", SPOIL(r.mutable_stopping()->add_stop(std::string()))},
      {"stop[0]", SPOIL(r.mutable_stopping()->add_stop(std::string(257, 'x')))},
      {"stop",
       SPOIL(for (int i = 0; i < 17; ++i) r.mutable_stopping()->add_stop(std::string(1, 'x')))},
      {"stop_token_ids[0]", SPOIL(r.mutable_stopping()->add_stop_token_ids(kVocabSize))},
      {"stop_token_ids",
       SPOIL(for (int i = 0; i < 257; ++i) r.mutable_stopping()->add_stop_token_ids(1))},
      {"speculation.mode", SPOIL(r.mutable_speculation()->set_mode(static_cast<v1::Mode>(99)))},
      {"speculation.rule", SPOIL(r.mutable_speculation()->set_rule(static_cast<v1::Rule>(99)))},
      {"draft_length", SPOIL(r.mutable_speculation()->set_draft_length(17))},
      {"draft_length", SPOIL(r.mutable_speculation()->set_draft_length(-1))},
      {"top_logprobs", SPOIL(r.mutable_output()->set_top_logprobs(21))},
      {"top_logprobs", SPOIL(r.mutable_output()->set_top_logprobs(-1))},
  };
  for (const Case& test : cases) ExpectInvalid(test);
}

TEST(ValidationTest, TheLimitsThemselvesAreFine) {
  v1::GenerateRequest request = Good();
  v1::Sampling* sampling = request.mutable_sampling();
  sampling->set_temperature(100);
  sampling->set_top_k(std::numeric_limits<int32_t>::max());
  sampling->set_top_p(1);
  sampling->set_min_p(0.999f);
  sampling->set_repetition_penalty(10);
  sampling->set_presence_penalty(-2);
  sampling->set_frequency_penalty(2);
  sampling->set_seed(std::numeric_limits<uint64_t>::max());
  (*sampling->mutable_logit_bias())[kVocabSize - 1] = -100;
  for (int i = 0; i < kMaxStopStrings; ++i) {
    request.mutable_stopping()->add_stop(std::string(kMaxStopBytes, 'x'));
  }
  request.mutable_stopping()->set_max_tokens(std::numeric_limits<int32_t>::max());
  request.mutable_speculation()->set_draft_length(kMaxDraftLength);
  request.mutable_output()->set_top_logprobs(kMaxTopLogprobs);
  request.set_request_id(std::string(kMaxRequestIdBytes, 'x'));
  EXPECT_TRUE(Validate(request, kVocabSize).ok()) << Validate(request, kVocabSize);
}

TEST(ValidationTest, TooManyLogitBiases) {
  v1::GenerateRequest request = Good();
  for (int i = 0; i <= kMaxLogitBiasEntries; ++i) {
    (*request.mutable_sampling()->mutable_logit_bias())[i] = 1;
  }
  EXPECT_THAT(std::string(Validate(request, 10000).message()),
              HasSubstr("logit_bias has 1025 entries, at most 1024"));
}

TEST(ValidationTest, TokenizeAndDetokenize) {
  v1::TokenizeRequest tokenize;
  EXPECT_TRUE(absl::IsInvalidArgument(Validate(tokenize)));
  tokenize.set_text("");
  EXPECT_TRUE(Validate(tokenize).ok());
  v1::DetokenizeRequest detokenize;
  EXPECT_TRUE(Validate(detokenize, kVocabSize).ok());
  detokenize.add_token_ids(kVocabSize);
  EXPECT_TRUE(absl::IsInvalidArgument(Validate(detokenize, kVocabSize)));
}

}  // namespace
}  // namespace tandem::gateway
