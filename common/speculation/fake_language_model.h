// A language model for tests: logits that depend on every token of the history and on
// nothing else.
#pragma once

#include <cstdint>

#include "absl/types/span.h"

namespace tandem {

// `agreement` in [0, 1]: the share of histories after which a model with another `salt`
// gives the logits of salt 0, the target's. So a draft model is one with agreement < 1.
class FakeLanguageModel {
 public:
  explicit FakeLanguageModel(uint64_t salt = 0, double agreement = 0.0)
      : salt_(salt), agreement_(agreement) {}

  // The state after `token_id`, from that before it; the empty history is 0.
  static uint64_t Extend(uint64_t state, int32_t token_id) {
    return Mix(state + 0x9E3779B97F4A7C15u * (static_cast<uint32_t>(token_id) + 1u));
  }

  static uint64_t StateOf(absl::Span<const int32_t> history) {
    uint64_t state = 0;
    for (const int32_t id : history) state = Extend(state, id);
    return state;
  }

  // Multiples of 1/8 in [-4, 4]: ties happen.
  void Logits(uint64_t state, absl::Span<float> logits) const {
    const bool agrees = static_cast<double>(Mix(state ^ 0xA5A5A5A5u) >> 11) * 0x1p-53 < agreement_;
    const uint64_t base = agrees ? state : state + salt_ * 0xD1342543DE82EF95u;
    for (size_t id = 0; id < logits.size(); ++id) {
      logits[id] = static_cast<float>(Mix(base + id * 0xC2B2AE3D27D4EB4Fu) % 65) / 8.0f - 4.0f;
    }
  }

 private:
  static uint64_t Mix(uint64_t x) {  // splitmix64's
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
  }

  uint64_t salt_;
  double agreement_;
};

}  // namespace tandem
