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
// A size of steps that is too long is tried again after so many: one in a hundred, and what is
// looked at is often their 99th percentile.
constexpr int32_t kStepsOut = 400;
constexpr double kTooLong = 1.03;  // times what a step may take

}  // namespace

double PrefillPacer::token_seconds() const {
  if (row_token_ <= 0.0 || alone_token_ <= 0.0) return std::max(row_token_, alone_token_);
  return std::min(row_token_, alone_token_);
}

int32_t PrefillPacer::Budget(double plain_seconds, int32_t num_prompts,
                             int32_t num_decoding) const {
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
  const auto budget = static_cast<int32_t>(
      std::clamp<double>(tokens, kFewestTokens, std::max<double>(kFewestTokens, most)));
  return num_prompts > 1 ? budget : FitSizes(budget, num_decoding);
}

// The most tokens, up to `num_tokens`, that no size forbids; where all do, those of the smallest.
int32_t PrefillPacer::FitSizes(int32_t num_tokens, int32_t num_decoding) const {
  while (sizes_[SizeOf(num_decoding + num_tokens)].num_steps_out > 0) {
    const int32_t size = SizeOf(num_decoding + num_tokens);
    const int32_t fewer = (1 << (size - 1)) - num_decoding;
    if (fewer < kFewestTokens) break;
    num_tokens = fewer;
  }
  return num_tokens;
}

void PrefillPacer::ObserveMixed(const MixedStep& step) {
  if (step.plain_seconds <= 0.0) return;
  const double extra = std::max(0.0, step.seconds - step.plain_seconds);
  if (step.row_seconds > 0.0) {
    row_token_ =
        row_token_ <= 0.0 ? step.row_seconds : row_token_ + 0.1 * (step.row_seconds - row_token_);
  } else if (token_seconds() <= 0.0) {
    row_token_ = extra / step.num_tokens;
  }
  const double fixed = std::max(0.0, extra - step.num_tokens * token_seconds());
  fixed_ += kWeight * (std::min(fixed, kLargestJump * fixed_ + 0.5 * step.plain_seconds) - fixed_);
  ObserveSize(step);
}

void PrefillPacer::ObserveSize(const MixedStep& step) {
  for (Size& size : sizes_) size.num_steps_out = std::max(0, size.num_steps_out - 1);
  if (step.num_prompts > 1) return;  // it may have had their parts too
  Size& size = sizes_[SizeOf(step.num_other_rows + step.num_tokens)];
  if (step.seconds <= kTooLong * options_.max_stretch * step.plain_seconds) {
    size = {};
  } else if (++size.num_too_long > 1) {
    size.num_steps_out = kStepsOut;
  }
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
