#include "services/gateway/engine/page_planner.h"

#include "common/base/check.h"

namespace tandem::gateway {

void PagePlanner::Reset(const PoolFacts& facts) {
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
  if (num_free() - keep_free < num_more) return false;
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
  state.pages.clear();
  state.num_pages_sent = 0;
  state.kv_length = 0;
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
