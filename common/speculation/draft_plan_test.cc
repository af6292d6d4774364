// What one step is planned to draft.
#include <vector>

#include "common/speculation/controller.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

class SinglePlan : public testing::Test {
 protected:
  SinglePlan() {
    planner_.costs().ObserveVerify(1, 1.0);
    planner_.costs().ObserveVerify(5, 1.2);
    planner_.costs().ObservePropose(1, 4, 0.4);
    request_.state = &state_;
  }
  DraftPlan Plan() { return planner_.Plan({request_}, 0)[0]; }

  DraftPlanner planner_;
  SequenceDraftState state_;
  DraftRequest request_;
};

TEST_F(SinglePlan, PrefersALookupOverTheModelWhenItMatchesLong) {
  EXPECT_EQ(Plan().source, DraftSource::kDraft);
  request_.match = {.length = 12, .next_position = 3, .trust = MatchTrust::kLong};
  EXPECT_EQ(Plan().source, DraftSource::kLookup);
  for (int32_t i = 0; i < 20; ++i)
    state_.acceptance.Of(DraftSource::kLookup, MatchTrust::kLong).Record(4, 0);
  EXPECT_EQ(Plan().source, DraftSource::kDraft);
}

// Each sequence's draft promises more than its match, but all wait for the draft's step.
TEST(DraftPlannerTest, ABatchMayBeBestServedByItsLookupsAlone) {
  constexpr int32_t kBatch = 8;
  DraftPlanner planner;
  for (int32_t rows = 1; rows <= 32; ++rows) {
    planner.costs().ObserveVerify(rows, rows <= 8 ? 1.0 : 1.1);
  }
  planner.costs().ObservePropose(kBatch, 1, 0.9);
  std::vector<SequenceDraftState> states(kBatch);
  std::vector<DraftRequest> requests;
  for (SequenceDraftState& state : states) {
    for (int32_t i = 0; i < 50; ++i) {
      state.acceptance.Of(DraftSource::kDraft).Record(4, 2);
      state.acceptance.Of(DraftSource::kLookup, MatchTrust::kShort).Record(1, i % 2);
    }
    requests.push_back({.state = &state, .match = {.length = 2, .trust = MatchTrust::kShort}});
  }
  for (const DraftPlan& plan : planner.Plan(requests, 0)) {
    EXPECT_EQ(plan.source, DraftSource::kLookup);
    EXPECT_FALSE(plan.probe);
  }
}

TEST(DraftPlannerTest, WhatTheDraftsStepsCostDoesNotEndLookups) {
  DraftPlanner planner;
  for (int32_t rows = 1; rows <= 8; ++rows) planner.costs().ObserveVerify(rows, 1.0);
  SequenceDraftState state;
  const DraftRequest request = {.state = &state,
                                .match = {.length = 12, .trust = MatchTrust::kLong}};
  planner.Plan({request}, 0);
  planner.RecordDraftTime({{{.state = &state, .num_tokens = 1}}}, 1, 1000.0);
  EXPECT_LT(state.balance.draft, -100.0);
  EXPECT_EQ(planner.Plan({request}, 0)[0].source, DraftSource::kLookup);
}

// A draft's step is over before the first verify is.
TEST(DraftPlannerTest, PlansWhileOnlyTheDraftsStepIsKnown) {
  DraftPlanner planner;
  planner.costs().ObservePropose(1, 3, 0.1);
  SequenceDraftState state;
  const DraftRequest fixed = {.state = &state, .min_tokens = 3, .max_tokens = 3};
  EXPECT_EQ(planner.Plan({fixed}, 0)[0].num_draft_tokens, 3);
  const DraftRequest automatic = {.state = &state};
  EXPECT_EQ(planner.Plan({automatic}, 0)[0].reason, bypass::kCalibrating);
}

// On a GPU the 65th row costs half a step: one more sequence may look, all together may not.
TEST(DraftPlannerTest, ProbesOfOneStepDoNotCrossASizeTogether) {
  constexpr int32_t kBatch = 60;
  DraftPlanner planner;
  for (int32_t i = 0; i < 20; ++i) {
    for (const int32_t rows : {59, 60, 62, 64}) planner.costs().ObserveVerify(rows, 5.0);
    for (const int32_t rows : {66, 72, 80, 100}) planner.costs().ObserveVerify(rows, 8.0);
  }
  std::vector<SequenceDraftState> states(kBatch);
  std::vector<DraftRequest> requests;
  for (SequenceDraftState& state : states) {
    state.has_account = true;
    state.balance.lookup = 100.0;
    for (int32_t i = 0; i < 50; ++i) {
      state.acceptance.Of(DraftSource::kLookup, MatchTrust::kShort).Record(2, 0);
    }
    requests.push_back({.state = &state, .allow_draft = false, .match = {.length = 2}});
  }
  int32_t num_rows = kBatch;
  int32_t num_probes = 0;
  for (const DraftPlan& plan : planner.Plan(requests, 0)) {
    num_rows += plan.num_draft_tokens;
    num_probes += plan.probe ? 1 : 0;
  }
  EXPECT_GT(num_probes, 0);
  EXPECT_LE(num_rows, 64);
}

// Where rows are dear: half of the drafts end at once, what the others make is right.
TEST(DraftPlannerTest, ADraftIsPricedByWhatItIsExpectedToMake) {
  DraftPlanner planner;
  for (int32_t rows = 1; rows <= 8; ++rows) planner.costs().ObserveVerify(rows, 0.5 + 0.5 * rows);
  planner.costs().ObservePropose(1, 1, 0.1);
  planner.costs().ObservePropose(1, 2, 0.2);
  const auto drafts = [&](bool greedy) {
    SequenceDraftState state;
    for (int32_t i = 0; i < 200; ++i) {
      const int32_t made = i % 2;
      state.acceptance.Of(DraftSource::kDraft).Record(1, made);
      state.acceptance.going_on().Record(1, made);
    }
    const DraftRequest request = {
        .state = &state, .allow_lookup = false, .max_tokens = 1, .greedy = greedy};
    const DraftPlan plan = planner.Plan({request}, 0)[0];
    return plan.num_draft_tokens > 0 && !plan.probe;
  };
  EXPECT_TRUE(drafts(true));    // 1.5 tokens for 1.25 + 0.1
  EXPECT_FALSE(drafts(false));  // it never breaks off: 1.5 + 0.1
}

// A request that must draft does not keep the others from it: one step of theirs is measured.
TEST(DraftPlannerTest, OthersCalibrateForOneStepBesideOneThatMustDraft) {
  DraftPlanner planner;
  for (int32_t rows = 1; rows <= 16; ++rows) planner.costs().ObserveVerify(rows, 1.0);
  planner.costs().ObservePropose(1, 1, 0.1);
  SequenceDraftState forced, automatic;
  const std::vector<DraftRequest> requests = {{.state = &forced, .min_tokens = 1, .max_tokens = 1},
                                              {.state = &automatic}};
  int32_t num_calibrating = 0;
  for (int32_t step = 0; step < 2000; ++step) {
    const std::vector<DraftPlan> plans = planner.Plan(requests, 0);
    EXPECT_EQ(plans[0].num_draft_tokens, 1);
    num_calibrating += plans[1].reason == bypass::kCalibrating ? 1 : 0;
    planner.Record(
        {{{&forced, plans[0], 1, 1},
          {&automatic, plans[1], plans[1].num_draft_tokens, plans[1].num_draft_tokens}}});
  }
  EXPECT_GT(num_calibrating, 0);
  EXPECT_LT(num_calibrating, 10);
}

TEST_F(SinglePlan, NeverExceedsWhatMayBeCommitted) {
  for (int32_t max_tokens = 0; max_tokens <= kMaxDraftLength; ++max_tokens) {
    request_.max_tokens = max_tokens;
    EXPECT_LE(Plan().num_draft_tokens, max_tokens);
  }
  request_.max_tokens = 0;
  EXPECT_EQ(Plan().reason, bypass::kLastToken);
}

TEST_F(SinglePlan, AStepWithoutDecodesNeedsNoPlan) {
  EXPECT_TRUE(planner_.Plan({}, 100).empty());
  planner_.Record({});
}

TEST_F(SinglePlan, WhereNothingMayBeDraftedNothingIsWeighed) {
  request_.allow_draft = request_.allow_lookup = false;
  EXPECT_EQ(Plan().reason, bypass::kOff);
  EXPECT_FALSE(state_.has_account);
  request_.allow_draft = true;
  request_.max_tokens = 0;
  EXPECT_EQ(Plan().reason, bypass::kLastToken);
}

TEST_F(SinglePlan, AFixedLengthIsKeptWhateverItCosts) {
  request_.min_tokens = request_.max_tokens = 7;
  for (int32_t i = 0; i < 50; ++i) state_.acceptance.Of(DraftSource::kDraft).Record(7, 0);
  state_.balance.draft = -100.0;
  state_.has_account = true;
  EXPECT_EQ(Plan().num_draft_tokens, 7);
}

TEST_F(SinglePlan, SaysWhyNothingIsDrafted) {
  request_.draft_unavailable = bypass::kDraftDown;
  EXPECT_EQ(Plan().reason, bypass::kDraftDown);
  request_.allow_draft = false;
  EXPECT_EQ(Plan().reason, bypass::kNoMatch);
  request_.allow_lookup = false;
  EXPECT_EQ(Plan().reason, bypass::kOff);
  DraftPlanner fresh;
  DraftRequest request{.state = &state_};
  EXPECT_EQ(fresh.Plan({request}, 0)[0].reason, bypass::kCalibrating);
}

}  // namespace
}  // namespace tandem
