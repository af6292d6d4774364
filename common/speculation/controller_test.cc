// Simulated sequences on simulated workers: what planning costs and wins in time.
#include "common/speculation/controller.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace tandem {
namespace {

struct Workers {
  double row = 0.15;  // of the verify, for each row after the first
  double propose_fixed = 0.05;
  double propose_token = 0.15;

  double Verify(int32_t rows) const { return 1.0 + row * (rows - 1); }
  double Propose(int32_t tokens) const {
    return tokens == 0 ? 0.0 : propose_fixed + propose_token * tokens;
  }
};

struct Simulated {
  double seconds = 0.0;
  double plain_seconds = 0.0;
  double mean_length = 0.0;
  double speedup() const { return plain_seconds / seconds; }
};

// `acceptance` of the draft's tokens, by tokens committed so far.
Simulated Simulate(const Workers& workers, std::function<double(int32_t)> acceptance,
                   int32_t num_tokens, int32_t num_sequences, DraftPlanner* planner,
                   uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<SequenceDraftState> states(num_sequences);
  std::vector<int32_t> committed(num_sequences, 0);
  Simulated run;
  int64_t drafted = 0;
  int64_t steps = 0;
  while (*std::min_element(committed.begin(), committed.end()) < num_tokens) {
    std::vector<DraftRequest> requests(num_sequences);
    for (int32_t i = 0; i < num_sequences; ++i) requests[i].state = &states[i];
    const std::vector<DraftPlan> plans = planner->Plan(requests, 0);
    std::vector<DraftPlanner::Outcome> outcomes;
    std::vector<DraftPlanner::DraftWork> work;
    int32_t rows = 0;
    int32_t longest = 0;
    int32_t drafting = 0;
    for (int32_t i = 0; i < num_sequences; ++i) {
      const int32_t length = plans[i].num_draft_tokens;
      int32_t accepted = 0;
      while (accepted < length && uniform(random) < acceptance(committed[i])) ++accepted;
      outcomes.push_back({&states[i], plans[i], length, accepted});
      if (length > 0) work.push_back({&states[i], length});
      rows += 1 + length;
      longest = std::max(longest, length);
      drafting += length > 0 ? 1 : 0;
      drafted += length;
      ++steps;
    }
    const double noise = 0.9 + 0.2 * uniform(random);
    const double verify = workers.Verify(rows) * noise;
    const double propose = workers.Propose(longest) * noise;
    for (int32_t i = 0; i < num_sequences; ++i) committed[i] += 1 + outcomes[i].num_accepted;
    run.seconds += (verify + propose) / noise;
    planner->costs().ObserveVerify(rows, verify);
    if (longest > 0) planner->costs().ObservePropose(drafting, longest, propose);
    planner->Record(outcomes);
    planner->RecordDraftTime(work, num_sequences, propose);
  }
  const double total = static_cast<double>(std::accumulate(committed.begin(), committed.end(), 0));
  run.plain_seconds = total / num_sequences * workers.Verify(num_sequences);
  run.mean_length = 1.0 * drafted / steps;
  return run;
}

TEST(DraftPlannerTest, NeverAcceptedDraftsCostAtMostThreePercent) {
  for (const double propose_token : {0.02, 0.15, 0.5, 1.5}) {
    for (const int32_t num_tokens : {200, 1000}) {
      for (uint32_t seed = 1; seed <= 10; ++seed) {
        DraftPlanner planner;
        const Workers workers{.propose_token = propose_token};
        const Simulated run = Simulate(
            workers, [](int32_t) { return 0.0; }, num_tokens, 1, &planner, seed);
        EXPECT_GT(run.speedup(), 0.97) << propose_token << " " << num_tokens;
      }
    }
  }
}

// Each answer would begin with something to lose, if it did not know how others fared.
TEST(DraftPlannerTest, ManyShortAnswersOfNeverAcceptedDraftsCostAtMostThreePercent) {
  for (const int32_t num_sequences : {1, 8, 16}) {
    for (const double propose_token : {0.05, 0.2, 0.5}) {
      DraftPlanner planner;
      const Workers workers{.propose_token = propose_token};
      double seconds = 0.0;
      double plain_seconds = 0.0;
      for (uint32_t answer = 1; answer <= 20; ++answer) {
        const Simulated run = Simulate(
            workers, [](int32_t) { return 0.0; }, 64, num_sequences, &planner, answer);
        seconds += run.seconds;
        plain_seconds += run.plain_seconds;
      }
      EXPECT_GT(plain_seconds / seconds, 0.97) << num_sequences << " " << propose_token;
    }
  }
}

// Where a step has so many rows already that drafts do not pay, the prompt need not be read
// by the draft: that would hold up all the others.
TEST(DraftPlannerTest, ADraftThatCannotPayInThisCompanyIsNotFilled) {
  DraftPlanner planner;
  const Workers workers;
  Simulate(
      workers, [](int32_t) { return 0.7; }, 400, 1, &planner);
  Simulate(
      workers, [](int32_t) { return 0.7; }, 400, 16, &planner);
  planner.costs().ObserveDraftPrefill(100, 1.0);
  const SequenceDraftState fresh;
  EXPECT_TRUE(planner.WorthCatchingUp(fresh, 50, 500, planner.PricesOf(1)));
  EXPECT_FALSE(planner.WorthCatchingUp(fresh, 50, 500, planner.PricesOf(16)));
}

// Nobody drafts in a large batch, so what a draft step takes is never measured there: prompts were
// read by the draft for ever, beside each step: 0.93 of the tokens a second at 32 clients.
TEST(DraftPlannerTest, ADraftThatWasNeverAskedIsNotFilledWhereItCannotPay) {
  DraftPlanner planner;
  const SequenceDraftState fresh;
  EXPECT_FALSE(planner.WorthCatchingUp(fresh, 50, 500, planner.PricesOf(32)));
  for (const int32_t rows : {1, 31, 32}) planner.costs().ObserveVerify(rows, 3.0);
  for (const int32_t rows : {36, 64}) planner.costs().ObserveMixed(rows, 5.2);
  planner.costs().ObserveDraftPrefill(100, 0.01);
  EXPECT_FALSE(planner.WorthCatchingUp(fresh, 50, 500, planner.PricesOf(32)));
  EXPECT_TRUE(planner.WorthCatchingUp(fresh, 50, 500, planner.PricesOf(1)));
}

// One text whose drafts were refused shut the draft out of all that came after it: their prompts
// were not worth reading by what that text was like, so nobody learned what they were like.
TEST(DraftPlannerTest, OneBadTextDoesNotKeepTheDraftFromTheNext) {
  DraftPlanner planner;
  const Workers workers{.row = 0.25, .propose_token = 0.3};
  Simulate(
      workers, [](int32_t) { return 0.85; }, 800, 1, &planner);
  SequenceDraftState bad;
  for (int i = 0; i < 15; ++i) {
    planner.Record({{&bad, {.source = DraftSource::kDraft, .num_draft_tokens = 1}, 1, 0}});
  }
  planner.costs().ObserveDraftPrefill(100, 5.0);
  EXPECT_TRUE(planner.WorthCatchingUp(SequenceDraftState(), 50, 500, planner.PricesOf(1)));
}

// What the draft has not read is no cost of one step alone: more was missing with each plain step,
// and no step ever seemed worth it.
TEST(DraftPlannerTest, MissingTokensAreMadeUpForOverManySteps) {
  DraftPlanner planner;
  const Workers workers;
  Simulate(
      workers, [](int32_t) { return 0.75; }, 400, 1, &planner);
  planner.costs().ObserveDraftPrefill(100, 5.0);
  SequenceDraftState state;
  DraftRequest request{.state = &state, .num_missing_tokens = 24};
  EXPECT_GT(planner.Plan({&request, 1}, 0)[0].num_draft_tokens, 0);
}

TEST(DraftPlannerTest, ABatchOfNeverAcceptedDraftsCostsAtMostThreePercent) {
  for (const int32_t num_sequences : {2, 7, 16}) {
    DraftPlanner planner;
    const Simulated run = Simulate(
        {}, [](int32_t) { return 0.0; }, 300, num_sequences, &planner);
    EXPECT_GT(run.speedup(), 0.97) << num_sequences;
  }
}

// The best fixed length, had the acceptance been known.
double BestSpeedup(const Workers& workers, double acceptance) {
  double best = 1.0;
  double tokens = 1.0;
  double survives = 1.0;
  for (int32_t length = 1; length <= kMaxDraftLength; ++length) {
    survives *= acceptance;
    tokens += survives;
    best = std::max(best, tokens / (workers.Verify(1 + length) + workers.Propose(length)));
  }
  return best;
}

TEST(DraftPlannerTest, ComesCloseToTheBestFixedLength) {
  for (const double acceptance : {0.6, 0.8, 0.9, 0.98}) {
    for (const double propose_token : {0.05, 0.15, 0.3}) {
      const Workers workers{.propose_token = propose_token};
      double sum = 0.0;
      for (uint32_t seed = 1; seed <= 5; ++seed) {
        DraftPlanner planner;
        sum += Simulate(
                   workers, [&](int32_t) { return acceptance; }, 600, 1, &planner, seed)
                   .speedup();
      }
      EXPECT_GT(sum / 5, 0.9 * BestSpeedup(workers, acceptance))
          << acceptance << " " << propose_token;
    }
  }
}

TEST(DraftPlannerTest, PicksLongDraftsWhenNearlyAllAreAcceptedAndShortOnesOtherwise) {
  const Workers workers{.row = 0.03, .propose_token = 0.05};
  DraftPlanner planner;
  EXPECT_GT(Simulate(
                workers, [](int32_t) { return 0.99; }, 500, 1, &planner)
                .mean_length,
            8.0);
  DraftPlanner other;
  EXPECT_LT(Simulate(
                workers, [](int32_t) { return 0.5; }, 500, 1, &other)
                .mean_length,
            5.0);
}

TEST(DraftPlannerTest, StopsAndComesBackWhenTheTextChanges) {
  const auto acceptance = [](int32_t committed) { return committed / 400 % 2 == 0 ? 0.95 : 0.0; };
  DraftPlanner planner;
  const Simulated run = Simulate({}, acceptance, 3200, 1, &planner);
  // Half of the text at the best speed-up, half at none.
  const double best = 2.0 / (1.0 + 1.0 / BestSpeedup({}, 0.95));
  EXPECT_GT(run.speedup(), 1.0 + 0.7 * (best - 1.0));
}

TEST(DraftPlannerTest, ADraftTooSlowToPayIsLeftAlone) {
  DraftPlanner planner;
  const Workers workers{.propose_token = 1.2};
  const Simulated run = Simulate(
      workers, [](int32_t) { return 0.95; }, 500, 1, &planner);
  EXPECT_GT(run.speedup(), 0.97);
}

// A draft that is not sure of itself proposes nothing and costs all the same. What lookups win on
// the side is not for it to spend.
TEST(DraftPlannerTest, ADraftThatBreaksOffIsLeftAlone) {
  DraftPlanner planner;
  const Workers workers;
  SequenceDraftState state;
  int32_t num_asked = 0;
  for (int32_t step = 0; step < 400; ++step) {
    DraftRequest request;
    request.state = &state;
    if (step % 4 == 0) request.match = {.length = 8, .trust = MatchTrust::kLong};
    const DraftPlan plan = planner.Plan({&request, 1}, 0)[0];
    const bool asks = plan.source == DraftSource::kDraft;
    const int32_t length = asks ? 0 : plan.num_draft_tokens;
    num_asked += asks ? 1 : 0;
    planner.costs().ObserveVerify(1 + length, workers.Verify(1 + length));
    const std::vector<DraftPlanner::Outcome> outcomes = {{&state, plan, length, length}};
    planner.Record(outcomes);
    if (!asks) continue;
    planner.costs().ObservePropose(1, 1, workers.Propose(1));
    const std::vector<DraftPlanner::DraftWork> work = {{&state, 1}};
    planner.RecordDraftTime(work, 1, workers.Propose(1));
  }
  EXPECT_GT(num_asked, 0);
  EXPECT_LT(num_asked, 40);
}

TEST(DraftPlannerTest, SpeedsABatchUpTogether) {
  DraftPlanner planner;
  // Propose is shared: for one sequence of eight alone it would not pay.
  const Workers workers{.row = 0.02, .propose_fixed = 0.3, .propose_token = 0.1};
  const Simulated run = Simulate(
      workers, [](int32_t) { return 0.85; }, 300, 8, &planner);
  EXPECT_GT(run.speedup(), 1.3);
}

}  // namespace
}  // namespace tandem
