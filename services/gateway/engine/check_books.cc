// Whether what sequences hold is what the pool has given out, and what they have open is not
// to be released.
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "services/gateway/engine/engine_impl.h"

namespace tandem::gateway {

absl::Status Engine::Impl::CheckBooks() const {
  std::map<PageId, int32_t> references;
  std::set<SequenceId> released[kNumRoles];
  for (const Role role : {Role::kTarget, Role::kDraft}) {
    const ReleaseQueue& queue = (role == Role::kTarget ? target_ : draft_).release;
    released[static_cast<int>(role)].insert(queue.begin(), queue.end());
    if (released[static_cast<int>(role)].size() != queue.size()) {
      return absl::InternalError(absl::StrCat("the ", RoleName(role), " is to forget one twice"));
    }
    if (queue.size() > static_cast<size_t>(options_.max_running)) {
      return absl::InternalError(absl::StrCat("the ", RoleName(role), " is to forget ",
                                              queue.size(), ", ", options_.max_running, " ran"));
    }
  }
  int32_t num_slots = 0;
  std::set<int32_t> places;
  absl::Status status;
  const auto check = [&](const Sequence& sequence) {
    const auto fail = [&](auto... parts) {
      status.Update(absl::InternalError(
          absl::StrCat("sequence ", static_cast<int64_t>(sequence.id), ": ", parts...)));
    };
    for (const Role role : {Role::kTarget, Role::kDraft}) {
      const RoleState& state = sequence.role(role);
      for (const PageId page : state.pages) ++references[page];
      const auto num_pages = static_cast<int32_t>(state.pages.size());
      if (state.kv_length > 0 && pages_.PagesFor(role, state.kv_length) > num_pages) {
        fail(state.kv_length, " positions of the ", RoleName(role), " in ", num_pages, " pages");
      }
      if (state.num_pages_shared > num_pages) fail("shares more pages than it has");
      if (state.num_pages_sent > num_pages) fail("more pages sent than it has");
      if (!sequence.is_running && num_pages > 0) fail("holds pages while it waits");
      if (!sequence.is_running && state.is_open) fail("is open while it waits");
      if (state.is_open && released[static_cast<int>(role)].contains(sequence.id)) {
        fail("is open, and the ", RoleName(role), " is to forget it");
      }
    }
    if (sequence.role(Role::kTarget).kv_length > sequence.length()) fail("KV beyond its tokens");
    if (sequence.draft_probs_slot >= 0) ++num_slots;
    if (sequence.is_running && !sequence.swapped.places.empty()) fail("runs, and is swapped out");
    for (const int32_t place : sequence.swapped.places) {
      if (!places.insert(place).second) fail("shares place ", place, " of the swap space");
    }
  };
  for (const auto& sequence : running_) check(*sequence);
  for (const auto& sequence : waiting_) check(*sequence);
  if (num_slots + pages_.num_free_slots() != pages_.num_slots()) {
    status.Update(
        absl::InternalError(absl::StrCat(num_slots, " of ", pages_.num_slots(), " slots are held, ",
                                         pages_.num_free_slots(), " free")));
  }
  const auto num_swapped = static_cast<int32_t>(places.size());
  if (num_swapped + swap_.num_free() != swap_.num_places()) {
    status.Update(absl::InternalError(absl::StrCat(num_swapped, " of ", swap_.num_places(),
                                                   " places for swapped pages are held, ",
                                                   swap_.num_free(), " free")));
  }
  if (status.ok()) status = pages_.CheckReferences(references);
  return status;
}

}  // namespace tandem::gateway
