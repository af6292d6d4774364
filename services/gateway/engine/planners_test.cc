// Sharing of tokens and pages between sequences.
#include <numeric>

#include "gtest/gtest.h"
#include "services/gateway/engine/batch_planner.h"
#include "services/gateway/engine/engine_sim.h"
#include "services/gateway/engine/page_planner.h"

namespace tandem::gateway {
namespace {

TEST(SharePrefillTest, SharesEquallyAndGivesTheRestInOrder) {
  EXPECT_EQ(SharePrefill({1000, 1000}, 100), (std::vector<int32_t>{50, 50}));
  EXPECT_EQ(SharePrefill({1000, 10}, 100), (std::vector<int32_t>{90, 10}));
  EXPECT_EQ(SharePrefill({5, 0, 7}, 100), (std::vector<int32_t>{5, 0, 7}));
  EXPECT_TRUE(SharePrefill({}, 100).empty());
}

TEST(SharePrefillTest, NeverExceedsTheBudget) {
  const std::vector<int32_t> shares = SharePrefill(std::vector<int32_t>(50, 400), 100);
  EXPECT_EQ(std::accumulate(shares.begin(), shares.end(), 0), 100);
  EXPECT_EQ(shares[0], 16);  // not slivers for everybody
  EXPECT_EQ(shares[49], 0);
}

TEST(TrimDraftsTest, ShortensTheLongestFirst) {
  std::vector<DraftPlan> plans(3);
  plans[0] = {.source = DraftSource::kDraft, .num_draft_tokens = 8};
  plans[1] = {.source = DraftSource::kLookup, .num_draft_tokens = 3};
  TrimDrafts(9, &plans);
  EXPECT_EQ(plans[0].num_draft_tokens, 3);
  EXPECT_EQ(plans[1].num_draft_tokens, 3);
  TrimDrafts(3, &plans);
  EXPECT_EQ(plans[0].source, DraftSource::kNone);
  EXPECT_EQ(plans[1].reason, bypass::kNoRows);
}

TEST(PagePlannerTest, GrowsOnDemandAndPublishesGenerationsFirst) {
  SimPool pool;
  pool.num_pages = 4;
  pool.slots_per_page = 8;
  pool.draft_probs.resize(1);
  pool.Recreate();
  SimFence fence(&pool);
  PagePlanner pages(&fence, /*has_cache=*/false);
  pages.Reset(fence.Facts().value());
  pages.SetPositionsPerPage(Role::kTarget, 8);
  pages.SetPositionsPerPage(Role::kDraft, 4);
  Sequence a(SequenceId(1), {.prompt = {1}}, nullptr, &SimTokenizer(), {.max_tokens = 5});
  Sequence b(SequenceId(2), {.prompt = {1}}, nullptr, &SimTokenizer(), {.max_tokens = 5});

  EXPECT_TRUE(pages.Grow(Role::kTarget, 9, 0, &a));
  EXPECT_EQ(a.role(Role::kTarget).pages.size(), 2u);
  EXPECT_TRUE(pages.Grow(Role::kTarget, 16, 0, &a));
  EXPECT_EQ(pages.num_free(), 2);
  EXPECT_FALSE(pages.Grow(Role::kDraft, 5, 1, &b));
  EXPECT_TRUE(pages.Grow(Role::kDraft, 5, 0, &b));
  SequenceStep step;
  pages.FillPages(Role::kDraft, &b, &step);
  ASSERT_EQ(step.pages.size(), 2u);
  for (const PageEntry& entry : step.pages) {
    EXPECT_EQ(pool.generations[static_cast<int>(entry.page)], entry.generation);
  }
  SequenceStep again;
  pages.FillPages(Role::kDraft, &b, &again);
  EXPECT_EQ(again.first_page, 2);
  EXPECT_TRUE(again.pages.empty());

  EXPECT_TRUE(pages.TakeSlot(&a));
  EXPECT_TRUE(pages.TakeSlot(&a));
  EXPECT_FALSE(pages.TakeSlot(&b));
  pages.ReturnSlot(&a);
  pages.Drop(Role::kTarget, &a);
  pages.Drop(Role::kDraft, &b);
  EXPECT_EQ(pages.num_free(), 4);
  EXPECT_EQ(pages.num_free_slots(), 1);
}

TEST(PagePlannerTest, AttachesWhatIsIdleOnlyWhileOthersHaveRoom) {
  SimPool pool;
  pool.num_pages = 4;
  pool.slots_per_page = 4;
  pool.Recreate();
  SimFence fence(&pool);
  PagePlanner pages(&fence, /*has_cache=*/true);
  pages.Reset(fence.Facts().value());
  pages.SetPositionsPerPage(Role::kDraft, 4);
  const GenerationRequest request = {.prompt = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}};
  Sequence a(SequenceId(1), request, nullptr, &SimTokenizer(), {.max_tokens = 5});
  Sequence b(SequenceId(2), request, nullptr, &SimTokenizer(), {.max_tokens = 5});

  ASSERT_TRUE(pages.Grow(Role::kDraft, 12, 0, &a));
  a.role(Role::kDraft).kv_length = 12;
  pages.Share(Role::kDraft, &a);
  // While another holds them they are nobody's room.
  EXPECT_EQ(pages.Attach(Role::kDraft, /*keep_free=*/4, &b), 12);
  pages.Drop(Role::kDraft, &b);
  pages.Drop(Role::kDraft, &a);
  EXPECT_EQ(pages.num_available(), 4);
  EXPECT_EQ(pages.Attach(Role::kDraft, /*keep_free=*/2, &b), 8);
  EXPECT_EQ(pages.num_available(), 2);
  pages.Drop(Role::kDraft, &b);
}

}  // namespace
}  // namespace tandem::gateway
