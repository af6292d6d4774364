// top_k and top_p over candidates, without sorting them all.
#pragma once

#include <vector>

#include "common/speculation/sampler.h"

namespace tandem {

// The order of all choices: by falling logit, equal ones by rising id.
inline bool ComesBefore(const TokenCandidate& a, const TokenCandidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// Keeps the first `count` in that order. Linear time.
void KeepTopK(int32_t count, std::vector<TokenCandidate>* candidates);

// Keeps the shortest beginning in that order of scratch->candidates whose weights
// exp(logit) sum up to `aim`, at least one; all when they sum to less. Linear time on
// average. Returns whether they sum up to it.
bool KeepTopP(double aim, SamplerScratch* scratch);

// sum of exp(logit).
double SumWeights(const std::vector<TokenCandidate>& candidates);

}  // namespace tandem
