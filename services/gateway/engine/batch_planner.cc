#include "services/gateway/engine/batch_planner.h"

#include <algorithm>

#include "common/base/check.h"

namespace tandem::gateway {

std::vector<int32_t> SharePrefill(absl::Span<const int32_t> num_missing, int32_t budget) {
  // A smaller part would cost a sequence many steps for little.
  constexpr int32_t kSmallestShare = 16;
  std::vector<int32_t> shares(num_missing.size(), 0);
  if (num_missing.empty()) return shares;
  const int32_t equal = std::max(kSmallestShare, budget / static_cast<int32_t>(num_missing.size()));
  for (size_t i = 0; i < shares.size(); ++i) {
    shares[i] = std::min({num_missing[i], equal, budget});
    budget -= shares[i];
  }
  for (size_t i = 0; i < shares.size(); ++i) {
    const int32_t more = std::min(num_missing[i] - shares[i], budget);
    shares[i] += more;
    budget -= more;
  }
  return shares;
}

void TrimDrafts(int32_t max_rows, std::vector<DraftPlan>* plans) {
  TANDEM_CHECK(max_rows >= static_cast<int32_t>(plans->size()));
  int32_t num_rows = 0;
  for (const DraftPlan& plan : *plans) num_rows += 1 + plan.num_draft_tokens;
  for (; num_rows > max_rows; --num_rows) {
    DraftPlan& longest =
        *std::max_element(plans->begin(), plans->end(), [](const DraftPlan& a, const DraftPlan& b) {
          return a.num_draft_tokens < b.num_draft_tokens;
        });
    if (--longest.num_draft_tokens == 0) longest = DraftPlan{.reason = bypass::kNoRows};
  }
}

}  // namespace tandem::gateway
