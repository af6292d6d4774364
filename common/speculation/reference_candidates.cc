#include "common/speculation/reference_candidates.h"

#include <algorithm>
#include <cmath>

#include "common/speculation/philox.h"
#include "common/speculation/row_ops.h"

namespace tandem {

ReferenceCandidates::ReferenceCandidates(absl::Span<const float> row, const CandidateQuery& query) {
  const absl::Span<const float> logits = row.first(query.num_ids);
  numbers = {.position = query.position, .exp_sum = std::nan("")};
  const bool is_finite =
      std::all_of(logits.begin(), logits.end(), [](float logit) { return std::isfinite(logit); });
  if (!is_finite) return;
  const int32_t best = ArgMax(logits);
  numbers.greatest = logits[best];
  std::vector<float> scaled(logits.begin(), logits.end());
  ShiftAndScale(absl::MakeSpan(scaled), numbers.greatest, query.temperature);
  numbers.exp_sum = SumExp(scaled, 0.0f);

  const GumbelNoise noise(query.seed, query.position);
  const double least = noise.At(best);
  GumbelNoise::Group group;
  std::vector<IdLogit> bands[kNearBands];
  for (int32_t id = 0; id < query.num_ids; ++id) {
    if (id % GumbelNoise::kGroupSize == 0) group = noise.GroupAt(id / GumbelNoise::kGroupSize);
    if (scaled[id] + group.max_noise >= least && scaled[id] + noise.At(id, group) >= least) {
      contenders.push_back({logits[id], id});
    }
    const float band = -scaled[id] / kNearBandWidth;
    if (query.wants_near && band < kNearBands) {
      bands[static_cast<int32_t>(band)].push_back({logits[id], id});
    }
  }
  if (contenders.size() > kMaxContenders) contenders.clear();
  int32_t num_bands = 0;
  while (query.wants_near && num_bands < kNearBands && bands[num_bands].size() <= kNearBandIds) {
    near.insert(near.end(), bands[num_bands].begin(), bands[num_bands].end());
    ++num_bands;
  }
  numbers.reach = NearReach(num_bands);
}

std::optional<RowCandidates> ReferenceCandidates::view() const {
  if (std::isnan(numbers.exp_sum)) return std::nullopt;
  RowCandidates row = numbers;
  row.contenders = contenders;
  row.near = near;
  return row;
}

}  // namespace tandem
