// The KV of a sequence that has to go, moved to the target's host memory and back.
#include <algorithm>
#include <utility>

#include "services/gateway/engine/engine_impl.h"

namespace tandem::gateway {

// Before its pages are dropped.
void Engine::Impl::SwapOut(Sequence* sequence) {
  const RoleState& target = sequence->role(Role::kTarget);
  if (target.kv_length == 0) return;
  const int32_t num_pages = pages_.PagesFor(Role::kTarget, target.kv_length);
  if (!swap_.IsWorthwhile(num_pages, target.kv_length * pacer_.token_seconds())) return;
  const auto pages = absl::MakeConstSpan(target.pages).first(num_pages);
  sequence->swapped = {.places = swap_.Out(pages), .kv_length = target.kv_length};
  observer_->OnSwapped(num_pages, /*to_host=*/true);
}

// When its turn has come and it has what the prefix cache still had. Without pages for all, and
// after a failure, its tokens are run again instead.
void Engine::Impl::SwapIn(Sequence* sequence) {
  const SwappedKv swapped = std::exchange(sequence->swapped, {});
  RoleState& target = sequence->role(Role::kTarget);
  const size_t num_cached = target.pages.size();
  const bool is_wanted = sequence->num_replays == 0 && target.kv_length < swapped.kv_length;
  if (!is_wanted || !GrowOverDrafts(swapped.kv_length, sequence)) {
    swap_.Free(swapped.places);
    return;
  }
  const auto places = absl::MakeConstSpan(swapped.places);
  swap_.Free(places.first(num_cached));
  swap_.Back(places.subspan(num_cached), absl::MakeConstSpan(target.pages).subspan(num_cached));
  target.kv_length = swapped.kv_length;
  observer_->OnSwapped(static_cast<int32_t>(places.size() - num_cached), /*to_host=*/false);
}

void Engine::Impl::ForgetSwapped() {
  for (const auto& sequence : waiting_) sequence->swapped = {};
  swap_.Reset(0);
}

// Whether the step was refused because its copies find no memory there: no sequence's fault, and
// not tried again with this target.
bool Engine::Impl::BlameSwap(const absl::Status& status) {
  if (!swap_.is_copying() || !absl::IsResourceExhausted(status)) return false;
  incarnation_without_swap_ = target_.incarnation;
  return true;
}

}  // namespace tandem::gateway
