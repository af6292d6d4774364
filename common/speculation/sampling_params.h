// How a sequence's tokens are chosen.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace tandem {

// Which tokens of a draft are kept; see verify.h.
enum class AcceptanceRule : int32_t { kCoupled = 0, kRejection = 1 };

// Checked at the edge (services/gateway); plain numbers from there on.
struct SamplingParams {
  float temperature = 0.0f;  // 0 is greedy
  int32_t top_k = 0;         // 0 keeps all
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;  // prompt and output
  float presence_penalty = 0.0f;    // output only
  float frequency_penalty = 0.0f;   // output only
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;  // <= -100 bans
  AcceptanceRule rule = AcceptanceRule::kCoupled;

  int32_t prompt_tokens = 0;  // positions from here on are output
  int32_t min_tokens = 0;     // output tokens before end_token_ids may come
  std::vector<int32_t> end_token_ids;
  int32_t used_vocab_size = 0;  // ids from here on are never chosen; 0: all are used

  bool logprobs = false;
  int32_t top_logprobs = 0;
};

// Log-probability of a chosen token under the raw distribution (before penalties and
// temperature), with the likeliest alternatives in falling order.
struct TokenLogprob {
  float logprob = 0.0f;
  std::vector<std::pair<int32_t, float>> top;
};

}  // namespace tandem
