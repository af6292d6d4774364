#include "cli/token_lengths.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace tandem {
namespace {

// Standard deviation of the logarithm: half of the lengths are below 0.61 of the mean, one in
// twenty above 3.1 times it.
constexpr double kSigma = 1.0;

}  // namespace

absl::StatusOr<TokenLengths> ParseTokenLengths(const std::string& text) {
  std::vector<std::string> parts = absl::StrSplit(text, ':');
  TokenLengths lengths;
  bool is_valid = true;
  if (parts.size() == 4 && parts[0] == "lognormal") {
    is_valid = absl::SimpleAtod(parts[1], &lengths.lognormal_mean) &&
               std::isfinite(lengths.lognormal_mean) && lengths.lognormal_mean >= 1.0;
    parts.erase(parts.begin(), parts.begin() + 2);
  }
  is_valid = is_valid && parts.size() <= 2 && absl::SimpleAtoi(parts.front(), &lengths.low) &&
             absl::SimpleAtoi(parts.back(), &lengths.high) && lengths.low >= 1 &&
             lengths.high >= lengths.low;
  if (!is_valid) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", text, "' is no number of tokens: give N, LOW:HIGH or lognormal:MEAN:LOW:HIGH"));
  }
  return lengths;
}

int32_t Draw(const TokenLengths& lengths, std::mt19937_64& random) {
  if (lengths.high <= lengths.low) return lengths.low;
  if (lengths.lognormal_mean <= 0.0) {
    return lengths.low + static_cast<int32_t>(random() % (lengths.high - lengths.low + 1));
  }
  const double mu = std::log(lengths.lognormal_mean) - kSigma * kSigma / 2;
  const double drawn = std::lognormal_distribution<double>(mu, kSigma)(random);
  return static_cast<int32_t>(std::clamp<double>(std::round(drawn), lengths.low, lengths.high));
}

}  // namespace tandem
