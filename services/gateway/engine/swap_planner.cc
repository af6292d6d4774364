#include "services/gateway/engine/swap_planner.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace tandem::gateway {

void SwapPlanner::Reset(int32_t num_places) {
  num_places_ = num_places;
  copies_.clear();
  free_.clear();
  for (int32_t place = num_places - 1; place >= 0; --place) free_.push_back(place);
}

bool SwapPlanner::IsWorthwhile(int32_t num_pages, double recompute_seconds) {
  if (num_pages > num_free()) return false;
  if (page_seconds_ == 0.0 || recompute_seconds <= 0.0) return true;
  if (2.0 * num_pages * page_seconds_ < recompute_seconds) return true;
  // The first copies may have been slow (memory is made when it is first used): what never happens
  // is never measured again.
  constexpr double kForget = 0.9;
  page_seconds_ *= kForget;
  return false;
}

std::vector<int32_t> SwapPlanner::Out(absl::Span<const PageId> pages) {
  TANDEM_CHECK(static_cast<int32_t>(pages.size()) <= num_free());
  std::vector<int32_t> places;
  for (const PageId page : pages) {
    places.push_back(free_.back());
    free_.pop_back();
    copies_.push_back({.page = page, .swap_page = places.back(), .to_host = true});
  }
  return places;
}

void SwapPlanner::Back(absl::Span<const int32_t> places, absl::Span<const PageId> pages) {
  TANDEM_CHECK(places.size() == pages.size());
  for (size_t i = 0; i < places.size(); ++i) {
    copies_.push_back({.page = pages[i], .swap_page = places[i], .to_host = false});
  }
  Free(places);
}

void SwapPlanner::Free(absl::Span<const int32_t> places) {
  free_.insert(free_.end(), places.begin(), places.end());
}

std::vector<PageCopy> SwapPlanner::TakeCopies() {
  num_in_flight_ = static_cast<int32_t>(copies_.size());
  return std::exchange(copies_, {});
}

void SwapPlanner::Observe(absl::Duration duration) {
  if (num_in_flight_ == 0) return;
  const double seconds = absl::ToDoubleSeconds(duration) / num_in_flight_;
  num_in_flight_ = 0;
  if (page_seconds_ == 0.0 || seconds < page_seconds_) {
    page_seconds_ = seconds;
  } else {
    page_seconds_ += 0.2 * (std::min(seconds, 2.0 * page_seconds_) - page_seconds_);
  }
}

}  // namespace tandem::gateway
