#include "common/speculation/truncation.h"

#include <algorithm>
#include <cmath>

#include "absl/types/span.h"
#include "common/speculation/row_ops.h"

namespace tandem {
namespace {

using Iterator = std::vector<WeightedCandidate>::iterator;

bool WeightedComesBefore(const WeightedCandidate& a, const WeightedCandidate& b) {
  return ComesBefore(a.candidate, b.candidate);
}

// The middle one of first, middle and last: a pivot that sorted input does not defeat.
WeightedCandidate MedianOfThree(Iterator begin, Iterator end) {
  WeightedCandidate a = *begin;
  WeightedCandidate b = *(begin + (end - begin) / 2);
  WeightedCandidate c = *(end - 1);
  if (WeightedComesBefore(b, a)) std::swap(a, b);
  if (WeightedComesBefore(c, b)) std::swap(b, c);
  return WeightedComesBefore(b, a) ? a : b;
}

void FillWeighted(SamplerScratch* scratch) {
  scratch->weights.clear();
  for (const TokenCandidate& c : scratch->candidates) scratch->weights.push_back(c.logit);
  ExpInPlace(absl::MakeSpan(scratch->weights));
  scratch->weighted.clear();
  for (size_t i = 0; i < scratch->candidates.size(); ++i) {
    scratch->weighted.push_back({scratch->candidates[i], scratch->weights[i]});
  }
}

}  // namespace

void KeepTopK(int32_t count, std::vector<TokenCandidate>* candidates) {
  if (count >= static_cast<int32_t>(candidates->size())) return;
  std::nth_element(candidates->begin(), candidates->begin() + count, candidates->end(),
                   ComesBefore);
  candidates->resize(count);
}

bool KeepTopP(double aim, SamplerScratch* scratch) {
  constexpr std::ptrdiff_t kSortedAtOnce = 32;
  FillWeighted(scratch);
  // Quickselect by weight: all before `begin` is kept and sums to `kept`; the last one to
  // be kept is in [begin, end).
  Iterator begin = scratch->weighted.begin();
  Iterator end = scratch->weighted.end();
  double kept = 0.0;
  while (end - begin > kSortedAtOnce) {
    const WeightedCandidate pivot = MedianOfThree(begin, end);
    const Iterator middle = std::partition(
        begin, end, [&](const WeightedCandidate& c) { return !WeightedComesBefore(pivot, c); });
    double weight = 0.0;
    for (Iterator i = begin; i != middle; ++i) weight += i->weight;
    // Both parts are shorter: the pivot is in the first, and of three distinct candidates
    // the last is not.
    if (kept + weight >= aim) {
      end = middle;
    } else {
      kept += weight;
      begin = middle;
    }
  }
  std::sort(begin, end, WeightedComesBefore);
  while (begin != end && kept < aim) kept += (begin++)->weight;
  scratch->candidates.clear();
  for (Iterator i = scratch->weighted.begin(); i != begin; ++i) {
    scratch->candidates.push_back(i->candidate);
  }
  return kept >= aim;
}

double SumWeights(const std::vector<TokenCandidate>& candidates) {
  double sum = 0.0;
  for (const TokenCandidate& c : candidates) sum += std::exp(static_cast<double>(c.logit));
  return sum;
}

}  // namespace tandem
