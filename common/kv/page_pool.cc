#include "common/kv/page_pool.h"

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace tandem {

KvPagePool::KvPagePool(int32_t num_pages) {
  TANDEM_CHECK(num_pages > 0);
  pages_.resize(num_pages);
  free_.reserve(num_pages);
  // Page 0 on top: a lightly used pool touches the start of its memory only.
  for (int32_t page = num_pages - 1; page >= 0; --page) free_.push_back(PageId(page));
}

KvPagePool::Page& KvPagePool::At(PageId page) {
  const auto index = static_cast<size_t>(page);
  TANDEM_CHECK(index < pages_.size());
  return pages_[index];
}

const KvPagePool::Page& KvPagePool::At(PageId page) const {
  return const_cast<KvPagePool*>(this)->At(page);
}

absl::StatusOr<std::vector<PageId>> KvPagePool::Allocate(Role role, int32_t num_pages) {
  TANDEM_CHECK(num_pages >= 0);
  if (num_pages > num_free()) {
    return absl::ResourceExhaustedError(absl::StrCat("the ", RoleName(role), " needs ", num_pages,
                                                     " KV pages, ", num_free(), " of ",
                                                     this->num_pages(), " are free"));
  }
  std::vector<PageId> pages;
  pages.reserve(num_pages);
  for (int32_t i = 0; i < num_pages; ++i) {
    pages.push_back(free_.back());
    free_.pop_back();
    Page& page = At(pages.back());
    TANDEM_CHECK(page.num_references == 0 && !page.is_kept);
    page.num_references = 1;
    page.role = role;
    if (++page.generation == 0) page.generation = 1;  // 0 is "never handed out"
  }
  num_used_[static_cast<int>(role)] += num_pages;
  return pages;
}

void KvPagePool::AddRef(PageId id) {
  Page& page = At(id);
  TANDEM_CHECK(page.num_references > 0 || page.is_kept);
  if (page.num_references == 0) {
    UnlinkIdle(static_cast<int32_t>(id));
    ++num_used_[static_cast<int>(page.role)];
    ++num_pinned_;
  }
  ++page.num_references;
}

void KvPagePool::Release(absl::Span<const PageId> pages) {
  for (auto id = pages.rbegin(); id != pages.rend(); ++id) {
    Page& page = At(*id);
    TANDEM_CHECK(page.num_references > 0);
    if (--page.num_references > 0) continue;
    --num_used_[static_cast<int>(page.role)];
    if (page.is_kept) {
      --num_pinned_;
      AppendIdle(static_cast<int32_t>(*id));
    } else {
      free_.push_back(*id);
    }
  }
}

void KvPagePool::Keep(PageId id) {
  Page& page = At(id);
  TANDEM_CHECK(page.num_references > 0 && !page.is_kept);
  page.is_kept = true;
  ++num_pinned_;
}

std::optional<PageId> KvPagePool::OldestIdle() const {
  if (oldest_idle_ == kNone) return std::nullopt;
  return PageId(oldest_idle_);
}

std::vector<PageId> KvPagePool::IdlePages(Role role) const {
  std::vector<PageId> idle;
  for (int32_t index = oldest_idle_; index != kNone; index = pages_[index].newer) {
    if (pages_[index].role == role) idle.push_back(PageId(index));
  }
  return idle;
}

void KvPagePool::Evict(PageId id) {
  Page& page = At(id);
  TANDEM_CHECK(page.num_references == 0 && page.is_kept);
  UnlinkIdle(static_cast<int32_t>(id));
  page.is_kept = false;
  free_.push_back(id);
}

void KvPagePool::AppendIdle(int32_t index) {
  Page& page = pages_[index];
  page.older = newest_idle_;
  page.newer = kNone;
  (newest_idle_ == kNone ? oldest_idle_ : pages_[newest_idle_].newer) = index;
  newest_idle_ = index;
  ++num_idle_[static_cast<int>(page.role)];
}

void KvPagePool::UnlinkIdle(int32_t index) {
  Page& page = pages_[index];
  (page.older == kNone ? oldest_idle_ : pages_[page.older].newer) = page.newer;
  (page.newer == kNone ? newest_idle_ : pages_[page.newer].older) = page.older;
  page.older = page.newer = kNone;
  --num_idle_[static_cast<int>(page.role)];
}

uint32_t KvPagePool::generation(PageId id) const {
  const Page& page = At(id);
  TANDEM_CHECK(page.num_references > 0 || page.is_kept);
  return page.generation;
}

}  // namespace tandem
