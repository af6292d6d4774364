#include "services/gateway/engine/prefill_pacer.h"

#include <algorithm>

namespace tandem::gateway {
namespace {

// Before anything is measured; small against any step.
constexpr int32_t kFirstTokens = 16;
constexpr int32_t kFewestTokens = 2;
constexpr double kWeight = 0.25;
// One odd measurement moves an average by this factor at most.
constexpr double kLargestJump = 3.0;

}  // namespace

double PrefillPacer::token_seconds() const {
  if (row_token_ <= 0.0 || alone_token_ <= 0.0) return std::max(row_token_, alone_token_);
  return std::min(row_token_, alone_token_);
}

int32_t PrefillPacer::Budget(double plain_seconds, int32_t num_prompts) const {
  const double per_token = token_seconds();
  const double more = std::max(1, num_prompts);
  if (plain_seconds <= 0.0 || per_token <= 0.0) return std::min(kFirstTokens, options_.max_tokens);
  const auto tokens_at = [&](double stretch) {
    return ((stretch - 1.0) * more * plain_seconds - fixed_) / per_token;
  };
  // Half of what the chunk costs should be for its tokens.
  const double efficient = std::min(fixed_ / per_token, tokens_at(options_.max_stretch));
  const double tokens = std::max(tokens_at(options_.stretch), efficient);
  const double most = more * options_.max_tokens;
  return static_cast<int32_t>(
      std::clamp<double>(tokens, kFewestTokens, std::max<double>(kFewestTokens, most)));
}

void PrefillPacer::ObserveMixed(int32_t num_tokens, double seconds, double plain_seconds,
                                double row_seconds) {
  if (plain_seconds <= 0.0) return;
  const double extra = std::max(0.0, seconds - plain_seconds);
  if (row_seconds > 0.0) {
    row_token_ = row_token_ <= 0.0 ? row_seconds : row_token_ + 0.1 * (row_seconds - row_token_);
  } else if (token_seconds() <= 0.0) {
    row_token_ = extra / num_tokens;
  }
  const double fixed = std::max(0.0, extra - num_tokens * token_seconds());
  fixed_ += kWeight * (std::min(fixed, kLargestJump * fixed_ + 0.5 * plain_seconds) - fixed_);
}

void PrefillPacer::ObserveAlone(int32_t num_tokens, double seconds) {
  constexpr int32_t kMany = 32;  // few tokens say more of the step than of a token
  if (num_tokens < kMany) return;
  const double token = seconds / num_tokens;
  if (alone_token_ <= 0.0) {
    alone_token_ = token;
  } else {
    alone_token_ += kWeight * (std::min(token, kLargestJump * alone_token_) - alone_token_);
  }
}

}  // namespace tandem::gateway
