#include "common/model/executor.h"

#include <cmath>

namespace tandem {

GreatestLogit Executor::Greatest(int32_t row) {
  const absl::Span<const float> logits = Logits(row);
  GreatestLogit greatest = {.token_id = 0, .value = logits[0]};
  for (size_t id = 0; id < logits.size(); ++id) {
    if (std::isnan(logits[id])) return {.token_id = static_cast<int32_t>(id), .value = logits[id]};
    if (logits[id] > greatest.value) {
      greatest = {.token_id = static_cast<int32_t>(id), .value = logits[id]};
    }
  }
  return greatest;
}

}  // namespace tandem
