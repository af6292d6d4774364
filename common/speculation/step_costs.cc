#include "common/speculation/step_costs.h"

#include <algorithm>
#include <bit>

#include "common/base/check.h"

namespace tandem {
namespace {

// Until measured: a further row costs this share of the first; a further sequence too. On
// the low side, so that it is tried: what that may lose is bounded, what is never tried
// is never known.
constexpr double kRowShare = 0.05;
// Until measured: a draft token costs this share of a plain step.
constexpr double kDraftShare = 0.2;
constexpr int32_t kWarmUp = 8;

double RelativeCost(double num_rows) { return 1.0 + kRowShare * (num_rows - 1.0); }

}  // namespace

int32_t StepCosts::RowClass(int32_t num_rows) {
  TANDEM_CHECK(num_rows > 0);
  if (num_rows <= 16) return num_rows - 1;
  // 17 to 32 rows are ranges of two, 33 to 64 of four.
  const auto log2_width =
      static_cast<int32_t>(std::bit_width(static_cast<uint32_t>(num_rows - 1))) - 4;
  const int32_t range = ((num_rows - 1) >> log2_width) - 8;
  return std::min(kNumRowClasses - 1, 16 + 8 * (log2_width - 1) + range);
}

int32_t StepCosts::RowsOf(int32_t row_class) {
  if (row_class < 16) return row_class + 1;
  const int32_t log2_width = (row_class - 16) / 8 + 1;
  return ((row_class - 16) % 8 + 8) << log2_width | 1 << (log2_width - 1);
}

int32_t StepCosts::BatchClass(int32_t num_sequences) {
  // 1, 2, 3-4, 5-8, 9-16, more.
  const int32_t index = std::bit_width(static_cast<uint32_t>(num_sequences - 1));
  return std::min(kNumBatchClasses - 1, index);
}

// Going down fast at first (the first steps of a process are slow), later by a limited
// factor either way.
void StepCosts::Average::Observe(double seconds) {
  ++num_observations;
  if (num_observations == 1) {
    value = seconds;
  } else if (num_observations <= kWarmUp) {
    const double weight = seconds < value ? 0.6 : 0.2;
    value += weight * (std::min(seconds, 2.0 * value) - value);
  } else {
    value *= 1.0 + 0.15 * (std::clamp(seconds / value, 0.6, 1.6) - 1.0);
  }
}

void StepCosts::Line::Observe(double num_tokens, double seconds) {
  constexpr double kDecay = 0.95;
  ++num_observations;
  if (num_observations > kWarmUp) {
    const double expected = At(num_tokens);
    seconds = std::clamp(seconds, 0.6 * expected, 1.6 * expected);
  } else if (num_observations == 2 && seconds < 0.5 * At(num_tokens)) {
    n = x = xx = y = xy = 0.0;  // the first was a cold start
  } else if (num_observations > 1) {
    seconds = std::min(seconds, 3.0 * At(num_tokens));  // and so may this one be
  }
  for (double* sum : {&n, &x, &xx, &y, &xy}) *sum *= kDecay;
  n += 1.0;
  x += num_tokens;
  xx += num_tokens * num_tokens;
  y += seconds;
  xy += num_tokens * seconds;
  Solve();
}

void StepCosts::Line::Solve() {
  // A small weight on a line through the origin decides when all lengths were equal.
  constexpr double kRidge = 0.5;
  const double ridged = n + kRidge;
  const double determinant = ridged * xx - x * x;
  fixed = std::max(0.0, (y * xx - x * xy) / determinant);
  per_token = std::max(0.0, (xy - fixed * x) / xx);
}

void StepCosts::ObserveVerify(int32_t num_rows, double seconds) {
  const int32_t row_class = RowClass(num_rows);
  const uint64_t bit = uint64_t{1} << row_class;
  Average& average = verify_[row_class];
  if ((mixed_ & bit) != 0) average = {};
  mixed_ &= ~bit;
  measured_ |= bit;
  const double before = average.value;
  average.Observe(seconds);
  if (average.num_observations <= kWarmUp) return;
  // What slows this row count down (longer contexts, a busier machine) slows the others
  // too, which may not be run for long.
  const double drift = 1.0 + 0.5 * (average.value / before - 1.0);
  for (Average& other : verify_) {
    if (&other != &average) other.value *= drift;
  }
}

void StepCosts::ObserveMixed(int32_t num_rows, double seconds) {
  const int32_t row_class = RowClass(num_rows);
  const uint64_t bit = uint64_t{1} << row_class;
  if ((measured_ & ~mixed_ & bit) != 0) return;
  mixed_ |= bit;
  measured_ |= bit;
  verify_[row_class].Observe(seconds);
}

void StepCosts::ObservePropose(int32_t num_sequences, int32_t num_draft_tokens, double seconds) {
  propose_[BatchClass(num_sequences)].Observe(num_draft_tokens, seconds);
  knows_propose_ = true;
}

void StepCosts::ObserveDraftPrefill(int32_t num_tokens, double seconds) {
  draft_prefill_.Observe(num_tokens, seconds);
}

double StepCosts::Verify(int32_t num_rows) const {
  const int32_t row_class = RowClass(num_rows);
  if ((measured_ >> row_class & 1) != 0) return verify_[row_class].value;
  const uint64_t all_below = measured_ & ((uint64_t{1} << row_class) - 1);
  const uint64_t all_above = measured_ & ~all_below;
  const int32_t below = 63 - std::countl_zero(all_below);
  const int32_t above = std::countr_zero(all_above);
  if (all_below == 0) {
    return verify_[above].value * RelativeCost(num_rows) / RelativeCost(RowsOf(above));
  }
  if (all_above == 0) {
    const int32_t lowest = std::countr_zero(all_below);
    if (lowest == below) {
      return verify_[below].value * RelativeCost(num_rows) / RelativeCost(RowsOf(below));
    }
    const double row =
        (verify_[below].value - verify_[lowest].value) / (RowsOf(below) - RowsOf(lowest));
    return verify_[below].value + std::max(0.0, row) * (num_rows - RowsOf(below));
  }
  const double share =
      1.0 * (num_rows - RowsOf(below)) / std::max(1, RowsOf(above) - RowsOf(below));
  return verify_[below].value +
         std::clamp(share, 0.0, 1.0) * (verify_[above].value - verify_[below].value);
}

double StepCosts::RowSeconds(int32_t num_rows) const {
  constexpr int32_t kSpan = 8;
  if (std::popcount(measured_) < 2) return 0.0;
  return std::max(0.0, (Verify(num_rows + kSpan) - Verify(num_rows)) / kSpan);
}

int32_t StepCosts::FreeRows(int32_t num_rows) const {
  constexpr double kHardly = 1.03;
  const double limit = kHardly * Verify(num_rows);
  int32_t free = kMostFree;
  while (free > 0 && Verify(num_rows + free) > limit) --free;
  return free;
}

double StepCosts::Propose(int32_t num_sequences, int32_t num_draft_tokens) const {
  if (num_draft_tokens == 0 || num_sequences == 0) return 0.0;
  const int32_t wanted = BatchClass(num_sequences);
  for (int32_t distance = 0; distance < kNumBatchClasses; ++distance) {
    for (const int32_t found : {wanted - distance, wanted + distance}) {
      if (found < 0 || found >= kNumBatchClasses || propose_[found].num_observations == 0) continue;
      const double scale = RelativeCost(1 << wanted) / RelativeCost(1 << found);
      return propose_[found].At(num_draft_tokens) * scale;
    }
  }
  return kDraftShare * Verify(1) * num_draft_tokens * RelativeCost(num_sequences);
}

}  // namespace tandem
