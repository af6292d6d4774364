#include "common/kv/page_pool.h"

#include <algorithm>
#include <map>
#include <random>

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

TEST(KvPagePoolDeathTest, OwnBugsStopTheProcess) {
  KvPagePool pool(2);
  const PageId page = pool.Allocate(Role::kTarget, 1).value()[0];
  pool.Release({page});
  EXPECT_DEATH(pool.Release({page}), "CHECK failed");
  EXPECT_DEATH(pool.AddRef(page), "CHECK failed");
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
    const uint32_t choice = random_() % 8;
    if (choice < 3) {
      Allocate();
    } else if (choice < 5 && !references_.empty()) {
      const PageId page = references_[random_() % references_.size()];
      pool_.AddRef(page);
      references_.push_back(page);
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
  }

  void Check() {
    std::map<PageId, int> live;
    for (const PageId page : references_) ++live[page];
    int32_t used[kNumRoles] = {};
    for (const auto& [page, count] : live) {
      ++used[static_cast<int>(roles_[page])];
      ASSERT_EQ(pool_.generation(page), last_generation_[static_cast<size_t>(page)]);
    }
    ASSERT_EQ(pool_.num_used(Role::kTarget), used[0]);
    ASSERT_EQ(pool_.num_used(Role::kDraft), used[1]);
    ASSERT_EQ(pool_.num_free() + used[0] + used[1], pool_.num_pages());
  }

  std::mt19937 random_;
  KvPagePool pool_;
  std::vector<PageId> references_;
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
