#include "common/speculation/draft_plan.h"

#include <utility>

namespace tandem {

SourceAcceptance::SourceAcceptance(double memory)
    : draft_(0.7, memory),
      lookups_{AcceptanceEstimate(0.35, memory), AcceptanceEstimate(0.5, memory),
               AcceptanceEstimate(0.65, memory), AcceptanceEstimate(0.8, memory),
               AcceptanceEstimate(0.95, memory)},
      going_on_(0.95, memory) {}

const AcceptanceEstimate& SourceAcceptance::Of(DraftSource source, MatchTrust trust) const {
  return source == DraftSource::kLookup ? lookups_[static_cast<size_t>(trust)] : draft_;
}

AcceptanceEstimate& SourceAcceptance::Of(DraftSource source, MatchTrust trust) {
  return const_cast<AcceptanceEstimate&>(std::as_const(*this).Of(source, trust));
}

SourceAcceptance::Rates SourceAcceptance::rates() const {
  Rates rates = {.draft = draft_.rate(), .going_on = going_on_.rate()};
  for (size_t i = 0; i < lookups_.size(); ++i) rates.lookups[i] = lookups_[i].rate();
  return rates;
}

void SourceAcceptance::SetPriors(const Rates& all) {
  draft_.set_prior_rate(all.draft);
  for (size_t i = 0; i < lookups_.size(); ++i) lookups_[i].set_prior_rate(all.lookups[i]);
  going_on_.set_prior_rate(all.going_on);
}

}  // namespace tandem
