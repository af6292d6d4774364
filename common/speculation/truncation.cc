#include "common/speculation/truncation.h"

#include <algorithm>
#include <cmath>

namespace tandem {
namespace {

using Iterator = std::vector<TokenCandidate>::iterator;

double Weight(const TokenCandidate& candidate) {
  return std::exp(static_cast<double>(candidate.logit));
}

// The middle one of first, middle and last: a pivot that sorted input does not defeat.
TokenCandidate MedianOfThree(Iterator begin, Iterator end) {
  TokenCandidate a = *begin;
  TokenCandidate b = *(begin + (end - begin) / 2);
  TokenCandidate c = *(end - 1);
  if (ComesBefore(b, a)) std::swap(a, b);
  if (ComesBefore(c, b)) std::swap(b, c);
  return ComesBefore(b, a) ? a : b;
}

}  // namespace

void KeepTopK(int32_t count, std::vector<TokenCandidate>* candidates) {
  if (count >= static_cast<int32_t>(candidates->size())) return;
  std::nth_element(candidates->begin(), candidates->begin() + count, candidates->end(),
                   ComesBefore);
  candidates->resize(count);
}

void KeepTopP(double aim, std::vector<TokenCandidate>* candidates) {
  constexpr std::ptrdiff_t kSortedAtOnce = 32;
  // Quickselect by weight: all before `begin` is kept and sums to `kept`; the last one to
  // be kept is in [begin, end).
  Iterator begin = candidates->begin();
  Iterator end = candidates->end();
  double kept = 0.0;
  while (end - begin > kSortedAtOnce) {
    const TokenCandidate pivot = MedianOfThree(begin, end);
    const Iterator middle =
        std::partition(begin, end, [&](const TokenCandidate& c) { return !ComesBefore(pivot, c); });
    double weight = 0.0;
    for (Iterator i = begin; i != middle; ++i) weight += Weight(*i);
    // Both parts are shorter: the pivot is in the first, and of three distinct candidates
    // the last is not.
    if (kept + weight >= aim) {
      end = middle;
    } else {
      kept += weight;
      begin = middle;
    }
  }
  std::sort(begin, end, ComesBefore);
  for (; begin != end; ++begin) {
    kept += Weight(*begin);
    if (kept >= aim) {
      ++begin;
      break;
    }
  }
  candidates->erase(begin, candidates->end());
}

double SumWeights(const std::vector<TokenCandidate>& candidates) {
  double sum = 0.0;
  for (const TokenCandidate& candidate : candidates) sum += Weight(candidate);
  return sum;
}

}  // namespace tandem
