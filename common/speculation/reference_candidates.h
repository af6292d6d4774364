// RowCandidates of a row on the host, straight from their definition: for tests.
#pragma once

#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "common/kernels/row_candidates.h"

namespace tandem {

struct ReferenceCandidates {
  // Requires query.temperature > 0 and query.num_ids <= row.size().
  ReferenceCandidates(absl::Span<const float> row, const CandidateQuery& query);

  // No value when the row is not finite.
  std::optional<RowCandidates> view() const;

  RowCandidates numbers;  // without the ids
  std::vector<IdLogit> contenders;
  std::vector<IdLogit> near;
};

}  // namespace tandem
