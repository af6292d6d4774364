// What samplers ask of a step's rows, and what the device found.
#include <cmath>
#include <numeric>

#include "common/device/cuda_status.h"
#include "common/model/cuda_forward.h"

namespace tandem {

bool CudaForward::StageQueries(absl::Span<const StepSequence> sequences) {
  bool has_any = false;
  cuda::CandidateRow* row = Staged(device_.candidates);
  for (const StepSequence& sequence : sequences) {
    has_any |= sequence.num_logits > 0 && sequence.candidates.temperature > 0.0f;
    for (int32_t i = 0; i < sequence.num_logits; ++i) {
      *row = {.query = sequence.candidates};
      row->query.position += i;
      ++row;
    }
  }
  return has_any;
}

absl::Status CudaForward::FetchCandidates() {
  return CudaStatus(
      cudaMemcpyAsync(Staged(device_.candidates), device_.candidates,
                      static_cast<size_t>(num_logits_rows_) * sizeof(cuda::CandidateRow),
                      cudaMemcpyDeviceToHost, stream_),
      "fetching candidates");
}

std::optional<RowCandidates> CudaForward::Candidates(int32_t row) {
  if (!has_candidates_ || row >= num_logits_rows_) return std::nullopt;
  const cuda::CandidateRow& found = Staged(device_.candidates)[row];
  if (!(found.query.temperature > 0.0f)) return std::nullopt;
  const GreatestLogit greatest = Greatest(row);
  const double exp_sum = std::accumulate(std::begin(found.exp_sums), std::end(found.exp_sums), 0.0);
  if (greatest.token_id >= found.query.num_ids || !std::isfinite(exp_sum)) return std::nullopt;
  const cuda::CandidateIds& ids = host_ids_[row];
  RowCandidates candidates = {
      .position = found.query.position, .greatest = greatest.value, .exp_sum = exp_sum};
  if (found.num_contenders <= kMaxContenders) {
    candidates.contenders = {ids.contenders, static_cast<size_t>(found.num_contenders)};
  }
  near_.clear();
  int32_t num_bands = 0;
  while (found.query.wants_near && num_bands < kNearBands &&
         found.num_near[num_bands] <= kNearBandIds) {
    const IdLogit* band = ids.near[num_bands];
    near_.insert(near_.end(), band, band + found.num_near[num_bands]);
    ++num_bands;
  }
  candidates.near = near_;
  candidates.reach = NearReach(num_bands);
  return candidates;
}

}  // namespace tandem
