#include "services/gateway/engine/page_planner.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace tandem::gateway {

void PagePlanner::Reset(const PoolFacts& facts) {
  for (const Role role : {Role::kTarget, Role::kDraft}) ForgetCached(role);
  TANDEM_CHECK(!pool_ || (pool_->num_free() == pool_->num_pages() &&
                          num_free_slots() == facts_.num_draft_probs_slots));
  facts_ = facts;
  pool_.emplace(facts.num_pages);
  free_slots_.clear();
  for (int32_t slot = facts.num_draft_probs_slots - 1; slot >= 0; --slot) {
    free_slots_.push_back(slot);
  }
}

int32_t PagePlanner::PagesFor(Role role, int32_t num_positions) const {
  const int32_t per_page = positions_per_page_[static_cast<int>(role)];
  TANDEM_CHECK(per_page > 0);
  return (num_positions + per_page - 1) / per_page;
}

int64_t PagePlanner::Capacity(Role role) const {
  return int64_t{num_pages()} * positions_per_page_[static_cast<int>(role)];
}

bool PagePlanner::Grow(Role role, int32_t num_positions, int32_t keep_free, Sequence* sequence) {
  std::vector<PageId>& pages = sequence->role(role).pages;
  const int32_t num_more = PagesFor(role, num_positions) - static_cast<int32_t>(pages.size());
  if (num_more <= 0) return true;
  if (num_available() - keep_free < num_more) return false;
  while (num_free() < num_more) {
    const PageId oldest = *pool_->OldestIdle();
    Evict(pool_->role(oldest), oldest);
  }
  const std::vector<PageId> allocated = pool_->Allocate(role, num_more).value();
  for (const PageId page : allocated) {
    fence_->SetGeneration(page, pool_->generation(page));
    pages.push_back(page);
  }
  return true;
}

void PagePlanner::Drop(Role role, Sequence* sequence) {
  RoleState& state = sequence->role(role);
  if (!state.pages.empty()) pool_->Release(state.pages);
  state = RoleState();
}

absl::Span<const int32_t> PagePlanner::TokensOfPage(Role role, const Sequence& sequence,
                                                    int32_t page) const {
  const int32_t per_page = positions_per_page_[static_cast<int>(role)];
  return absl::MakeConstSpan(sequence.tokens).subspan(int64_t{page} * per_page, per_page);
}

int32_t PagePlanner::Attach(Role role, int32_t keep_free, Sequence* sequence) {
  RoleState& state = sequence->role(role);
  TANDEM_CHECK(state.pages.empty() && state.kv_length == 0);
  if (!has_cache_) return 0;
  const int32_t per_page = positions_per_page_[static_cast<int>(role)];
  const int32_t most = (sequence->length() - 1) / per_page;
  while (state.num_pages_shared < most) {
    const std::optional<PrefixIndex::Entry> found =
        index(role).Find(state.prefix, TokensOfPage(role, *sequence, state.num_pages_shared));
    if (!found.has_value()) break;
    if (!pool_->has_references(found->page) && num_available() <= keep_free) break;
    pool_->AddRef(found->page);
    state.pages.push_back(found->page);
    state.prefix = found->prefix;
    ++state.num_pages_shared;
  }
  state.kv_length = state.num_pages_shared * per_page;
  return state.kv_length;
}

int32_t PagePlanner::NumPagesHeldByOthers(Role role, const Sequence& sequence) const {
  if (!has_cache_) return 0;
  const int32_t most = (sequence.length() - 1) / positions_per_page_[static_cast<int>(role)];
  PrefixId prefix = kEmptyPrefix;
  int32_t count = 0;
  while (count < most) {
    const auto found = index(role).Find(prefix, TokensOfPage(role, sequence, count));
    if (!found.has_value() || !pool_->has_references(found->page)) break;
    prefix = found->prefix;
    ++count;
  }
  return count;
}

void PagePlanner::Share(Role role, Sequence* sequence) {
  if (!has_cache_) return;
  RoleState& state = sequence->role(role);
  if (state.kv_length == 0) return;
  // Tokens behind the end of the answer may have run too; they are nobody's prefix.
  const int32_t num_full =
      std::min(state.kv_length, sequence->length()) / positions_per_page_[static_cast<int>(role)];
  for (; state.num_pages_shared < num_full; ++state.num_pages_shared) {
    PageId& page = state.pages[state.num_pages_shared];
    const auto tokens = TokensOfPage(role, *sequence, state.num_pages_shared);
    const auto found = index(role).Find(state.prefix, tokens);
    if (!found.has_value()) {
      pool_->Keep(page);
      state.prefix = index(role).Insert(state.prefix, tokens, page);
      continue;
    }
    pool_->AddRef(found->page);
    pool_->Release({page});
    page = found->page;
    state.prefix = found->prefix;
    state.num_pages_sent = std::min(state.num_pages_sent, state.num_pages_shared);
  }
}

void PagePlanner::Evict(Role role, PageId page) {
  index(role).Remove(page);
  pool_->Evict(page);
  ++num_evicted_;
}

void PagePlanner::ForgetCached(Role role) {
  if (!pool_) return;
  for (const PageId page : pool_->IdlePages(role)) {
    index(role).Remove(page);
    pool_->Evict(page);
  }
  TANDEM_CHECK(index(role).size() == 0);
}

absl::Status PagePlanner::CheckReferences(const std::map<PageId, int32_t>& references) const {
  if (!pool_) return absl::OkStatus();
  for (int32_t i = 0; i < pool_->num_pages(); ++i) {
    const auto expected = references.find(PageId(i));
    const int32_t count = expected == references.end() ? 0 : expected->second;
    if (pool_->num_references(PageId(i)) == count) continue;
    return absl::InternalError(absl::StrCat("page ", i, " has ", pool_->num_references(PageId(i)),
                                            " references, sequences hold ", count));
  }
  const int32_t num_indexed = index(Role::kTarget).size() + index(Role::kDraft).size();
  const int32_t num_kept = pool_->num_idle() + pool_->num_pinned();
  if (num_indexed == num_kept) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(num_kept, " pages are kept, the index knows ", num_indexed));
}

bool PagePlanner::TakeSlot(Sequence* sequence) {
  if (sequence->draft_probs_slot >= 0) return true;
  if (free_slots_.empty()) return false;
  sequence->draft_probs_slot = free_slots_.back();
  free_slots_.pop_back();
  return true;
}

void PagePlanner::ReturnSlot(Sequence* sequence) {
  if (sequence->draft_probs_slot < 0) return;
  free_slots_.push_back(sequence->draft_probs_slot);
  sequence->draft_probs_slot = -1;
}

void PagePlanner::FillPages(Role role, Sequence* sequence, SequenceStep* step) const {
  RoleState& state = sequence->role(role);
  step->first_page = state.num_pages_sent;
  for (size_t i = state.num_pages_sent; i < state.pages.size(); ++i) {
    step->pages.push_back({state.pages[i], pool_->generation(state.pages[i])});
  }
  state.num_pages_sent = static_cast<int32_t>(state.pages.size());
}

}  // namespace tandem::gateway
