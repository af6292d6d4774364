#include "common/speculation/row_ops.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

namespace tandem {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int32_t kLanes = 16;    // independent chains: four vectors of four floats
constexpr int32_t kBlock = 1024;  // summed in float, then added up in double

// exp(x) for x <= 0 by x = n log 2 + r, |r| <= log(2) / 2, and a polynomial in r.
// Coefficients: Cephes expf (S. Moshier), error below 2 units in the last place.
inline float Exp(float x) {
  constexpr float kLowest = -87.0f;      // exp() is still a normal number
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float clamped = x < kLowest ? kLowest : x;
  const float shifted = clamped * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  // The low bits of `shifted` are n; 2^n by its exponent bits.
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) + 127u) << 23;
  const float result = y * std::bit_cast<float>(exponent);
  return x < kLowest ? 0.0f : result;
}

inline float Larger(float a, float b) { return a > b ? a : b; }

float MaxOf(const float* values, int32_t count) {
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, -kInfinity);
  int32_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int32_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = Larger(values[i + lane], lanes[lane]);
    }
  }
  float max = -kInfinity;
  for (; i < count; ++i) max = Larger(values[i], max);
  for (const float lane : lanes) max = Larger(lane, max);
  return max;
}

double SumBlock(const float* values, int32_t count) {
  float lanes[kLanes] = {};
  int32_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int32_t lane = 0; lane < kLanes; ++lane) lanes[lane] += values[i + lane];
  }
  double sum = 0.0;
  for (const float lane : lanes) sum += lane;
  for (; i < count; ++i) sum += values[i];
  return sum;
}

}  // namespace

void GroupMaxima(absl::Span<const float> row, std::vector<float>* group_max) {
  const int32_t size = static_cast<int32_t>(row.size());
  group_max->clear();
  for (int32_t i = 0; i < size; i += kRowGroupSize) {
    group_max->push_back(MaxOf(row.data() + i, std::min(kRowGroupSize, size - i)));
  }
}

int32_t ArgMax(absl::Span<const float> row) {
  const int32_t size = static_cast<int32_t>(row.size());
  float max = -kInfinity;
  int32_t start = -1;
  for (int32_t i = 0; i < size; i += kBlock) {
    const float block_max = MaxOf(row.data() + i, std::min(kBlock, size - i));
    if (block_max > max) {
      max = block_max;
      start = i;
    }
  }
  if (start < 0) return -1;
  while (row[start] != max) ++start;
  return start;
}

void ShiftAndScale(absl::Span<float> row, float max, float divisor) {
  for (float& value : row) value = (value - max) / divisor;
}

void ExpInPlace(absl::Span<float> row) {
  for (float& value : row) value = Exp(value);
}

double Sum(absl::Span<const float> row) {
  const int32_t size = static_cast<int32_t>(row.size());
  double sum = 0.0;
  for (int32_t i = 0; i < size; i += kBlock) {
    sum += SumBlock(row.data() + i, std::min(kBlock, size - i));
  }
  return sum;
}

double SumExp(absl::Span<const float> row, float max) {
  const int32_t size = static_cast<int32_t>(row.size());
  float block[kBlock];
  double sum = 0.0;
  for (int32_t i = 0; i < size; i += kBlock) {
    const int32_t count = std::min(kBlock, size - i);
    std::copy_n(row.data() + i, count, block);
    ShiftAndScale(absl::MakeSpan(block, count), max, 1.0f);
    ExpInPlace(absl::MakeSpan(block, count));
    sum += SumBlock(block, count);
  }
  return sum;
}

int32_t SampleWeights(absl::Span<const float> weights, double uniform) {
  const int32_t size = static_cast<int32_t>(weights.size());
  const double aim = uniform * Sum(weights);
  double passed = 0.0;
  int32_t start = -1;  // of the block to choose from: rounding may leave the aim beyond it
  double before = 0.0;
  for (int32_t i = 0; i < size; i += kBlock) {
    const double block_sum = SumBlock(weights.data() + i, std::min(kBlock, size - i));
    if (block_sum <= 0.0) continue;
    start = i;
    before = passed;
    passed += block_sum;
    if (passed > aim) break;
  }
  if (start < 0) return -1;
  int32_t last = -1;
  for (int32_t i = start; i < std::min(start + kBlock, size); ++i) {
    if (weights[i] <= 0.0f) continue;
    last = i;
    before += weights[i];
    if (before > aim) break;
  }
  return last;
}

float LowerBoundOfLargest(int32_t count, std::vector<float>* group_max) {
  // Each group whose maximum reaches the bound has at least one value that does.
  if (count > static_cast<int32_t>(group_max->size())) return -kInfinity;
  std::nth_element(group_max->begin(), group_max->begin() + (count - 1), group_max->end(),
                   std::greater<float>());
  return (*group_max)[count - 1];
}

}  // namespace tandem
