#include "common/kv/page_pool.h"

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace tandem {

KvPagePool::KvPagePool(int32_t num_pages) {
  TANDEM_CHECK(num_pages > 0);
  ref_counts_.assign(num_pages, 0);
  generations_.assign(num_pages, 0);
  roles_.assign(num_pages, Role::kTarget);
  free_.reserve(num_pages);
  // Page 0 on top: a lightly used pool touches the start of its memory only.
  for (int32_t page = num_pages - 1; page >= 0; --page) free_.push_back(PageId(page));
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
    const PageId page = free_.back();
    free_.pop_back();
    const auto index = static_cast<size_t>(page);
    TANDEM_CHECK(ref_counts_[index] == 0);
    ref_counts_[index] = 1;
    roles_[index] = role;
    if (++generations_[index] == 0) generations_[index] = 1;  // 0 is "never handed out"
    pages.push_back(page);
  }
  num_used_[static_cast<int>(role)] += num_pages;
  return pages;
}

void KvPagePool::AddRef(PageId page) {
  const auto index = static_cast<size_t>(page);
  TANDEM_CHECK(index < ref_counts_.size());
  TANDEM_CHECK(ref_counts_[index] > 0);
  ++ref_counts_[index];
}

void KvPagePool::Release(absl::Span<const PageId> pages) {
  for (const PageId page : pages) {
    const auto index = static_cast<size_t>(page);
    TANDEM_CHECK(index < ref_counts_.size());
    TANDEM_CHECK(ref_counts_[index] > 0);
    if (--ref_counts_[index] > 0) continue;
    free_.push_back(page);
    --num_used_[static_cast<int>(roles_[index])];
  }
}

uint32_t KvPagePool::generation(PageId page) const {
  const auto index = static_cast<size_t>(page);
  TANDEM_CHECK(index < ref_counts_.size());
  TANDEM_CHECK(ref_counts_[index] > 0);
  return generations_[index];
}

}  // namespace tandem
