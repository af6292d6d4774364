#include "common/kv/page_pool.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <random>
#include <set>

#include "gtest/gtest.h"

namespace tandem {
namespace {

TEST(KvPagePoolTest, AllocatesAllOrNothing) {
  KvPagePool pool(4);
  ASSERT_EQ(pool.Allocate(Role::kTarget, 3).value().size(), 3u);
  const auto refused = pool.Allocate(Role::kDraft, 2);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(refused.status().message(), "the draft needs 2 KV pages, 1 of 4 are free");
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_EQ(pool.num_used(Role::kDraft), 0);
  EXPECT_EQ(pool.Allocate(Role::kDraft, 1).value().size(), 1u);
  EXPECT_TRUE(pool.Allocate(Role::kDraft, 0).value().empty());
}

// A shared prefix page must outlive the first of its two sequences: freeing it
// early hands a live sequence's KV to another request.
TEST(KvPagePoolTest, SharedPageIsFreedByItsLastOwnerOnly) {
  KvPagePool pool(4);
  const std::vector<PageId> prefix = pool.Allocate(Role::kTarget, 1).value();
  pool.AddRef(prefix[0]);
  pool.Release(prefix);
  EXPECT_EQ(pool.num_free(), 3);
  EXPECT_EQ(pool.num_used(Role::kTarget), 1);
  pool.Release(prefix);
  EXPECT_EQ(pool.num_free(), 4);
  EXPECT_EQ(pool.num_used(Role::kTarget), 0);
}

TEST(KvPagePoolTest, GenerationChangesOnlyWhenHandedOutAnew) {
  KvPagePool pool(1);
  const PageId page = pool.Allocate(Role::kTarget, 1).value()[0];
  EXPECT_EQ(pool.generation(page), 1u);
  pool.AddRef(page);
  EXPECT_EQ(pool.generation(page), 1u);
  pool.Release({page, page});
  ASSERT_EQ(pool.Allocate(Role::kDraft, 1).value()[0], page);
  EXPECT_EQ(pool.generation(page), 2u);
}

// What is kept is found again under its generation, until it is evicted.
TEST(KvPagePoolTest, AKeptPageIsIdleUntilItIsSharedOrEvicted) {
  KvPagePool pool(2);
  const PageId page = pool.Allocate(Role::kTarget, 1).value()[0];
  pool.Keep(page);
  EXPECT_EQ(pool.num_pinned(), 1);
  pool.Release({page});
  EXPECT_EQ(pool.num_idle(Role::kTarget), 1);
  EXPECT_EQ(pool.num_used(Role::kTarget), 0);
  EXPECT_EQ(pool.num_free(), 1);
  pool.AddRef(page);
  EXPECT_EQ(pool.generation(page), 1u);
  EXPECT_EQ(pool.num_idle(), 0);
  pool.Release({page});
  ASSERT_EQ(pool.OldestIdle(), page);
  pool.Evict(page);
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_EQ(pool.num_idle(), 0);
}

// Evicting the start of a prefix first would leave pages that nobody can find.
TEST(KvPagePoolTest, TheEndOfASequenceIsEvictedBeforeItsStart) {
  KvPagePool pool(3);
  const std::vector<PageId> pages = pool.Allocate(Role::kTarget, 3).value();
  for (const PageId page : pages) pool.Keep(page);
  pool.Release(pages);
  for (int i = 2; i >= 0; --i) {
    ASSERT_EQ(pool.OldestIdle(), pages[i]);
    pool.Evict(pages[i]);
  }
}

TEST(KvPagePoolDeathTest, OwnBugsStopTheProcess) {
  KvPagePool pool(2);
  const PageId page = pool.Allocate(Role::kTarget, 1).value()[0];
  pool.Release({page});
  EXPECT_DEATH(pool.Release({page}), "CHECK failed");
  EXPECT_DEATH(pool.AddRef(page), "CHECK failed");
  EXPECT_DEATH(pool.Keep(page), "CHECK failed");
  EXPECT_DEATH(pool.Evict(page), "CHECK failed");
  EXPECT_DEATH(pool.AddRef(PageId(2)), "CHECK failed");
  EXPECT_DEATH(pool.generation(PageId(-1)), "CHECK failed");
  EXPECT_DEATH(KvPagePool(0), "CHECK failed");
}

// Random operations against the obvious model: a list of references.
class PoolModel {
 public:
  explicit PoolModel(uint32_t seed) : random_(seed), pool_(1 + random_() % 40) {
    last_generation_.assign(pool_.num_pages(), 0);
  }

  void Step() {
    const uint32_t choice = random_() % 11;
    if (choice < 3) {
      Allocate();
    } else if (choice < 5 && !references_.empty()) {
      const PageId page = references_[random_() % references_.size()];
      pool_.AddRef(page);
      references_.push_back(page);
    } else if (choice == 5 && !references_.empty()) {
      const PageId page = references_[random_() % references_.size()];
      if (kept_.insert(page).second) pool_.Keep(page);
    } else if (choice == 6 && !idle_.empty()) {
      Evict();
    } else if (choice == 7 && !idle_.empty()) {
      const size_t index = random_() % idle_.size();
      pool_.AddRef(idle_[index]);
      references_.push_back(idle_[index]);
      idle_.erase(idle_.begin() + index);
    } else {
      Release();
    }
    Check();
  }

 private:
  void Allocate() {
    const auto role = static_cast<Role>(random_() % kNumRoles);
    const auto num_pages = static_cast<int32_t>(random_() % 9);
    const int32_t num_free = pool_.num_free();
    const auto pages = pool_.Allocate(role, num_pages);
    ASSERT_EQ(pages.ok(), num_pages <= num_free);
    if (!pages.ok()) {
      ASSERT_EQ(pool_.num_free(), num_free);
      return;
    }
    for (const PageId page : *pages) {
      ASSERT_EQ(std::count(references_.begin(), references_.end(), page), 0) << "handed out twice";
      ASSERT_GT(pool_.generation(page), last_generation_[static_cast<size_t>(page)]);
      last_generation_[static_cast<size_t>(page)] = pool_.generation(page);
      roles_[page] = role;
      references_.push_back(page);
    }
  }

  void Release() {
    std::shuffle(references_.begin(), references_.end(), random_);
    const size_t count =
        references_.empty() ? 0 : random_() % std::min<size_t>(references_.size() + 1, 12);
    const std::vector<PageId> pages(references_.end() - count, references_.end());
    references_.resize(references_.size() - count);
    pool_.Release(pages);
    // The last of them first.
    for (auto page = pages.rbegin(); page != pages.rend(); ++page) {
      const bool is_last = std::count(references_.begin(), references_.end(), *page) == 0 &&
                           std::count(page + 1, pages.rend(), *page) == 0;
      if (is_last && kept_.contains(*page)) idle_.push_back(*page);
    }
  }

  void Evict() {
    const auto role = static_cast<Role>(random_() % kNumRoles);
    std::vector<PageId> of_role;
    std::copy_if(idle_.begin(), idle_.end(), std::back_inserter(of_role),
                 [&](PageId page) { return roles_[page] == role; });
    ASSERT_EQ(pool_.OldestIdle(), idle_.front());
    ASSERT_EQ(pool_.IdlePages(role), of_role);
    if (of_role.empty()) return;
    const auto oldest = std::find(idle_.begin(), idle_.end(), of_role.front());
    pool_.Evict(*oldest);
    kept_.erase(*oldest);
    idle_.erase(oldest);
  }

  void Check() {
    std::map<PageId, int> live;
    for (const PageId page : references_) ++live[page];
    int32_t used[kNumRoles] = {};
    int32_t idle[kNumRoles] = {};
    int32_t num_pinned = 0;
    for (const auto& [page, count] : live) {
      ++used[static_cast<int>(roles_[page])];
      num_pinned += kept_.contains(page) ? 1 : 0;
      ASSERT_EQ(pool_.generation(page), last_generation_[static_cast<size_t>(page)]);
    }
    for (const PageId page : idle_) {
      ++idle[static_cast<int>(roles_[page])];
      ASSERT_FALSE(pool_.has_references(page));
      ASSERT_EQ(pool_.generation(page), last_generation_[static_cast<size_t>(page)]);
    }
    ASSERT_EQ(pool_.num_pinned(), num_pinned);
    ASSERT_EQ(pool_.num_idle(Role::kTarget), idle[0]);
    ASSERT_EQ(pool_.num_idle(Role::kDraft), idle[1]);
    ASSERT_EQ(pool_.num_used(Role::kTarget), used[0]);
    ASSERT_EQ(pool_.num_used(Role::kDraft), used[1]);
    ASSERT_EQ(pool_.num_free() + used[0] + used[1] + idle[0] + idle[1], pool_.num_pages());
  }

  std::mt19937 random_;
  KvPagePool pool_;
  std::vector<PageId> references_;
  std::set<PageId> kept_;
  std::vector<PageId> idle_;  // the oldest first
  std::vector<uint32_t> last_generation_;
  std::map<PageId, Role> roles_;
};

TEST(KvPagePoolPropertyTest, EveryPageHasOneStateUnderRandomOperations) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    PoolModel model(seed);
    for (int i = 0; i < 400 && !testing::Test::HasFatalFailure(); ++i) model.Step();
    ASSERT_FALSE(testing::Test::HasFatalFailure());
  }
}

}  // namespace
}  // namespace tandem
