// How long the prompts and answers of a load test are.
#pragma once

#include <cstdint>
#include <random>
#include <string>

#include "absl/status/statusor.h"

namespace tandem {

// A number of tokens in [low, high]: each as likely as any other, or log-normal and what is beyond
// clipped to the ends, as lengths of real traffic are: many short ones and a long tail.
struct TokenLengths {
  int32_t low = 0;
  int32_t high = 0;
  double lognormal_mean = 0.0;  // in tokens, before clipping; 0: evenly
};

// "128", "64:256" evenly, or "lognormal:MEAN:LOW:HIGH". INVALID_ARGUMENT for anything else.
absl::StatusOr<TokenLengths> ParseTokenLengths(const std::string& text);

int32_t Draw(const TokenLengths& lengths, std::mt19937_64& random);

}  // namespace tandem
