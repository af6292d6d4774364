#include "services/draft/draft_engine.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

#include "common/worker/draft_probs.h"
#include "services/draft/draft_engine_fixture.h"

namespace tandem::draft {
namespace {

// What the draft says one token at a time is what it says 5 at a time, whatever was
// kept of the drafts before.
TEST(DraftEngineTest, DraftsAreTheModelsOwnContinuation) {
  for (const float temperature : {0.0f, 1.0f}) {
    const SamplingParams params = {.temperature = temperature, .top_k = 10, .seed = 4};
    Bench single;
    Bench chain;
    single.Open(1, params);
    chain.Open(1, params);
    std::vector<int32_t> history = {5, 6, 7};
    SequenceStep one = {.sequence = SequenceId(1),
                        .token_ids = history,
                        .pages = single.Pages(100),
                        .num_draft_tokens = 1};
    while (history.size() < 60) {
      history.push_back(single.RunOne(one).draft_token_ids.at(0));
      one = {.sequence = SequenceId(1),
             .start_position = static_cast<int32_t>(history.size()) - 1,
             .token_ids = {history.back()},
             .num_draft_tokens = 1};
    }

    std::mt19937 random(1);
    int32_t num_run = 0;
    int32_t length = 3;
    bool is_first = true;
    while (length < 50) {
      const int32_t num_drafts = random() % 6;
      SequenceStep step = {.sequence = SequenceId(1),
                           .start_position = num_run,
                           .token_ids = {history.begin() + num_run, history.begin() + length},
                           .num_draft_tokens = num_drafts};
      if (is_first) step.pages = chain.Pages(100);
      is_first = false;
      const ProposeResult result = chain.RunOne(step);
      ASSERT_TRUE(result.status.ok()) << result.status;
      ASSERT_EQ(
          result.draft_token_ids,
          std::vector<int32_t>(history.begin() + length, history.begin() + length + num_drafts));
      ASSERT_EQ(result.draft_probs.size(), result.draft_token_ids.size());
      // Some drafts are kept; the next step starts at what was run of them, or before.
      const int32_t kept = num_drafts == 0 ? 0 : random() % (num_drafts + 1);
      num_run = length + std::min(kept, std::max(num_drafts - 1, 0));
      if (random() % 3 == 0) num_run = random() % num_run;
      length += kept + 1;
    }
  }
}

TEST(DraftEngineTest, SequencesOfAStepDoNotDisturbEachOther) {
  Bench alone;
  Bench together;
  std::mt19937 random(7);
  WorkerStep step;
  std::vector<std::vector<int32_t>> expected;
  for (int64_t id = 0; id < 6; ++id) {
    std::vector<int32_t> prompt(1 + random() % 40);
    for (int32_t& token : prompt) token = random() % 48;
    SequenceStep entry = {.sequence = SequenceId(id),
                          .token_ids = prompt,
                          .num_draft_tokens = static_cast<int32_t>(id) * 3};
    alone.Open(id);
    entry.pages = alone.Pages(64);
    expected.push_back(alone.RunOne(entry).draft_token_ids);
    together.Open(id);
    entry.pages = together.Pages(64);
    step.sequences.push_back(entry);
  }
  const ProposeStepResult result = together.Run(step);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(result.results[i].draft_token_ids, expected[i]);
    EXPECT_EQ(expected[i].size(), i * 3);
  }
}

TEST(DraftEngineTest, LowConfidenceEndsTheDraftEarly) {
  Bench bench;
  bench.Open(1);
  SequenceStep step = {.sequence = SequenceId(1),
                       .token_ids = {1, 2, 3},
                       .pages = bench.Pages(64),
                       .num_draft_tokens = 16};
  const ProposeResult all = bench.RunOne(step);
  ASSERT_EQ(all.draft_token_ids.size(), 16u);
  std::vector<float> sorted = all.draft_probs;
  std::sort(sorted.begin(), sorted.end());
  step.min_confidence = sorted[2];
  const ProposeResult some = bench.RunOne(step);
  size_t count = 0;
  while (all.draft_probs[count] >= sorted[2]) ++count;
  EXPECT_EQ(some.draft_token_ids,
            std::vector<int32_t>(all.draft_token_ids.begin(), all.draft_token_ids.begin() + count));
  step.min_confidence = 1.0f;
  EXPECT_TRUE(bench.RunOne(step).draft_token_ids.empty());
  // The dropped token is not in the history.
  EXPECT_EQ(bench.RunOne({.sequence = SequenceId(1), .start_position = 4, .token_ids = {1}})
                .status.code(),
            absl::StatusCode::kAborted);
}

// A backend that knows the greatest logit is not asked for whole rows; drafts, confidence
// and what is not finite are the same.
TEST(DraftEngineTest, GreedyDraftsNeedNoRows) {
  Bench by_row;
  Bench by_greatest(/*knows_greatest=*/true);
  ProposeResult results[2];
  for (const float min_confidence : {0.0f, 0.3f}) {
    int i = 0;
    for (Bench* bench : {&by_row, &by_greatest}) {
      bench->Open(min_confidence > 0.0f ? 2 : 1);
      results[i++] = bench->RunOne({.sequence = SequenceId(min_confidence > 0.0f ? 2 : 1),
                                    .token_ids = {1, 2, 3},
                                    .pages = bench->Pages(64),
                                    .num_draft_tokens = 16,
                                    .min_confidence = min_confidence});
    }
    EXPECT_EQ(results[0].draft_token_ids, results[1].draft_token_ids);
    ASSERT_EQ(results[0].draft_probs.size(), results[1].draft_probs.size());
    for (size_t k = 0; k < results[0].draft_probs.size(); ++k) {
      // That of the device counts ids that are never chosen.
      EXPECT_NEAR(results[0].draft_probs[k], results[1].draft_probs[k], 0.05);
    }
  }
  // A row is looked at when its greatest is an id that is never chosen.
  EXPECT_LT(4 * by_greatest.executor().num_rows_read(), by_row.executor().num_rows_read());
  by_greatest.Open(3);
  const ProposeResult poisoned = by_greatest.RunOne({.sequence = SequenceId(3),
                                                     .token_ids = {1, kPoison},
                                                     .pages = by_greatest.Pages(64),
                                                     .num_draft_tokens = 2});
  EXPECT_EQ(poisoned.status.code(), absl::StatusCode::kInternal);
}

// A device that drafts by itself is asked once for a step, and says what token by token says, up to
// an id that is never chosen.
TEST(DraftEngineTest, AWholeDraftIsOneCallWhereTheDeviceCan) {
  Bench one_by_one(/*knows_greatest=*/true);
  Bench at_once(/*knows_greatest=*/true, /*can_draft=*/true);
  ProposeStepResult results[2];
  int i = 0;
  for (Bench* bench : {&one_by_one, &at_once}) {
    WorkerStep step;
    for (int64_t id = 1; id <= 4; ++id) {
      bench->Open(id);
      step.sequences.push_back({.sequence = SequenceId(id),
                                .token_ids = {static_cast<int32_t>(id), 7},
                                .pages = bench->Pages(64),
                                .num_draft_tokens = static_cast<int32_t>(4 * id - 4),
                                .min_confidence = id == 3 ? 0.35f : 0.0f});
    }
    results[i++] = bench->Run(step);
  }
  EXPECT_EQ(at_once.executor().num_drafts(), 1);
  EXPECT_EQ(one_by_one.executor().num_drafts(), 0);
  for (size_t k = 0; k < 4; ++k) {
    const ProposeResult& expected = results[0].results[k];
    const ProposeResult& actual = results[1].results[k];
    ASSERT_TRUE(actual.status.ok());
    ASSERT_LE(actual.draft_token_ids.size(), expected.draft_token_ids.size());
    for (size_t t = 0; t < actual.draft_token_ids.size(); ++t) {
      EXPECT_EQ(actual.draft_token_ids[t], expected.draft_token_ids[t]) << k << " " << t;
      EXPECT_EQ(actual.draft_probs[t], expected.draft_probs[t]) << k << " " << t;
    }
  }
  // The history is what was run: the next step goes on from there.
  const auto num_drafts = static_cast<int32_t>(results[1].results[3].draft_token_ids.size());
  ASSERT_GE(num_drafts, 6);
  EXPECT_TRUE(at_once
                  .RunOne({.sequence = SequenceId(4),
                           .start_position = 2 + num_drafts - 1,
                           .token_ids = {1},
                           .num_draft_tokens = 2})
                  .status.ok());
}

// Sampled drafts are in that call too, each in its own way beside greedy ones; what needs more than
// that of a row takes the whole step token by token.
TEST(DraftEngineTest, AWholeDraftMayBeSampled) {
  const SamplingParams kinds[] = {
      {.temperature = 0.8f, .seed = 5},
      {},
      {.temperature = 1.0f, .top_k = 10, .seed = 6},
      {.temperature = 0.7f, .top_p = 0.9f, .seed = 7},
      {.temperature = 1.5f, .min_p = 0.2f, .seed = 8},
      {.temperature = 1.0f, .repetition_penalty = 1.1f, .seed = 9},
      {.temperature = 1.0f, .seed = 9, .min_tokens = 30, .end_token_ids = {3}}};
  for (const int32_t num_kinds : {5, 6, 7}) {
    Bench one_by_one(/*knows_greatest=*/true);
    Bench at_once(/*knows_greatest=*/true, /*can_draft=*/true);
    ProposeStepResult results[2];
    int i = 0;
    for (Bench* bench : {&one_by_one, &at_once}) {
      WorkerStep step;
      for (int64_t id = num_kinds == 7 ? 6 : 0; id < num_kinds; ++id) {
        bench->Open(id, kinds[id]);
        step.sequences.push_back({.sequence = SequenceId(id),
                                  .token_ids = {static_cast<int32_t>(id) + 1, 7},
                                  .pages = bench->Pages(64),
                                  .num_draft_tokens = 12,
                                  .min_confidence = id == 3 ? 0.5f : 0.0f});
      }
      results[i++] = bench->Run(step);
    }
    EXPECT_EQ(at_once.executor().num_drafts(), num_kinds == 5 ? 1 : 0);
    ASSERT_EQ(results[0].results.size(), results[1].results.size());
    size_t num_tokens = 0;
    for (size_t k = 0; k < results[0].results.size(); ++k) {
      const ProposeResult& expected = results[0].results[k];
      const ProposeResult& actual = results[1].results[k];
      ASSERT_TRUE(actual.status.ok());
      if (k == 1) {  // greedy: up to an id that is never chosen
        ASSERT_LE(actual.draft_token_ids.size(), expected.draft_token_ids.size());
      } else {
        ASSERT_EQ(actual.draft_token_ids.size(), expected.draft_token_ids.size()) << k;
      }
      for (size_t t = 0; t < actual.draft_token_ids.size(); ++t) {
        EXPECT_EQ(actual.draft_token_ids[t], expected.draft_token_ids[t]) << k << " " << t;
        EXPECT_NEAR(actual.draft_probs[t], expected.draft_probs[t], 1e-5) << k << " " << t;
      }
      num_tokens += actual.draft_token_ids.size();
    }
    if (num_kinds == 5) {
      EXPECT_GT(num_tokens, 36u);
      EXPECT_LT(results[1].results[3].draft_token_ids.size(), 12u) << "not ended early";
    }
  }
}

// The same drafts and probabilities from what a device finds in a row.
TEST(DraftEngineTest, CoupledDraftsNeedNoRows) {
  Bench by_row;
  Bench by_candidates(/*knows_greatest=*/true);
  for (int64_t id = 1; id <= 8; ++id) {
    SamplingParams params{.temperature = 0.8f, .seed = static_cast<uint64_t>(id)};
    if (id % 2 == 0) params.top_k = 10;
    if (id % 3 == 0) params.top_p = 0.9f;
    ProposeResult results[2];
    int i = 0;
    for (Bench* bench : {&by_row, &by_candidates}) {
      bench->Open(id, params);
      results[i++] = bench->RunOne({.sequence = SequenceId(id),
                                    .token_ids = {1, 2, 3},
                                    .pages = bench->Pages(32),
                                    .num_draft_tokens = 16,
                                    .min_confidence = id > 6 ? 0.3f : 0.0f});
    }
    EXPECT_EQ(results[0].draft_token_ids, results[1].draft_token_ids);
    ASSERT_EQ(results[0].draft_probs.size(), results[1].draft_probs.size());
    for (size_t k = 0; k < results[0].draft_probs.size(); ++k) {
      EXPECT_NEAR(results[0].draft_probs[k], results[1].draft_probs[k], 1e-5);
    }
  }
  EXPECT_LT(10 * by_candidates.executor().num_rows_read(), by_row.executor().num_rows_read());
  by_candidates.Open(9, {.temperature = 1.0f});
  const ProposeResult poisoned = by_candidates.RunOne({.sequence = SequenceId(9),
                                                       .token_ids = {1, kPoison},
                                                       .pages = by_candidates.Pages(32),
                                                       .num_draft_tokens = 2});
  EXPECT_EQ(poisoned.status.code(), absl::StatusCode::kInternal);
}

TEST(DraftEngineTest, RejectionWritesWhatTheDraftsWereDrawnFrom) {
  Bench bench;
  bench.Open(1, {.temperature = 1.0f, .seed = 9, .rule = AcceptanceRule::kRejection});
  const ProposeResult result = bench.RunOne({.sequence = SequenceId(1),
                                             .token_ids = {1, 2, 3},
                                             .pages = bench.Pages(64),
                                             .draft_probs_slot = 1,
                                             .num_draft_tokens = 4});
  ASSERT_EQ(result.draft_token_ids.size(), 4u);
  std::vector<SparseDistribution> probs;
  ASSERT_TRUE(worker::ReadDraftProbs(*bench.pool().control().draft_probs_slot(1), SequenceId(1), 3,
                                     result.draft_token_ids, 50, probs));
  ASSERT_EQ(probs.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    const auto& ids = probs[i].ids;
    const auto found = std::find(ids.begin(), ids.end(), result.draft_token_ids[i]);
    ASSERT_NE(found, ids.end());
    EXPECT_NEAR(probs[i].probs[found - ids.begin()], result.draft_probs[i], 1e-5);
  }
  // Fewer of them are read too; others, elsewhere or of another sequence are not.
  const absl::Span<const int32_t> drafts = result.draft_token_ids;
  const DraftProbsSlot& slot = *bench.pool().control().draft_probs_slot(1);
  EXPECT_TRUE(worker::ReadDraftProbs(slot, SequenceId(1), 3, drafts.first(2), 50, probs));
  EXPECT_FALSE(worker::ReadDraftProbs(slot, SequenceId(2), 3, drafts, 50, probs));
  EXPECT_FALSE(worker::ReadDraftProbs(slot, SequenceId(1), 4, drafts, 50, probs));
  EXPECT_FALSE(worker::ReadDraftProbs(slot, SequenceId(1), 3, drafts.subspan(1), 50, probs));
  EXPECT_FALSE(worker::ReadDraftProbs(slot, SequenceId(1), 3, drafts, 1, probs));
  EXPECT_TRUE(probs.empty());
}

TEST(DraftEngineTest, BadEntriesFailAloneAndTheNextGoodStepWorks) {
  using absl::StatusCode;
  struct {
    const char* what;
    StatusCode code;
    std::function<void(SequenceStep&)> spoil;
  } const kBad[] = {
      {"unknown sequence", StatusCode::kNotFound, [](auto& s) { s.sequence = SequenceId(9); }},
      {"gap", StatusCode::kAborted, [](auto& s) { s.start_position = 40; }},
      {"token over", StatusCode::kInvalidArgument, [](auto& s) { s.token_ids = {50}; }},
      {"no token", StatusCode::kInvalidArgument, [](auto& s) { s.token_ids.clear(); }},
      {"17 drafts", StatusCode::kInvalidArgument, [](auto& s) { s.num_draft_tokens = 17; }},
      {"-1 drafts", StatusCode::kInvalidArgument, [](auto& s) { s.num_draft_tokens = -1; }},
      {"confidence", StatusCode::kInvalidArgument,
       [](auto& s) { s.min_confidence = std::nanf(""); }},
      {"slot", StatusCode::kInvalidArgument, [](auto& s) { s.draft_probs_slot = 2; }},
      {"beyond its pages", StatusCode::kInvalidArgument,
       [](auto& s) {
         s.token_ids.resize(13);
         s.num_draft_tokens = 2;
       }},
      {"not finite", StatusCode::kInternal, [](auto& s) { s.token_ids = {kPoison}; }},
      {"pass fails", StatusCode::kInternal, [](auto& s) { s.token_ids = {49}; }},
  };
  for (const bool can_draft : {false, true}) {
    Bench bench(can_draft, can_draft);
    bench.Open(1);
    bench.Open(2);
    ASSERT_TRUE(
        bench.RunOne({.sequence = SequenceId(1), .token_ids = {1, 2, 3}, .pages = bench.Pages(16)})
            .status.ok());
    const SequenceStep good = {
        .sequence = SequenceId(1), .start_position = 3, .token_ids = {4}, .num_draft_tokens = 3};
    const SequenceStep other = {.sequence = SequenceId(2),
                                .token_ids = {7, 8},
                                .pages = bench.Pages(16),
                                .num_draft_tokens = 3};
    const auto expected = bench.RunOne(good).draft_token_ids;
    const auto expected_other = bench.RunOne(other).draft_token_ids;
    for (const auto& bad : kBad) {
      SCOPED_TRACE(bad.what);
      SequenceStep entry = good;
      bad.spoil(entry);
      const ProposeStepResult result = bench.Run({.sequences = {entry, other}});
      ASSERT_TRUE(result.status.ok());
      EXPECT_EQ(result.results[0].status.code(), bad.code) << result.results[0].status;
      EXPECT_EQ(result.results[1].draft_token_ids, expected_other);
      EXPECT_EQ(bench.RunOne(good).draft_token_ids, expected);
    }
  }
}

TEST(DraftEngineTest, StalePageIsNotWritten) {
  Bench bench;
  bench.Open(1);
  const auto pages = bench.Pages(16);
  ASSERT_TRUE(
      bench.RunOne({.sequence = SequenceId(1), .token_ids = {1}, .pages = pages}).status.ok());
  bench.pool().control().SetGeneration(pages[0].page, pages[0].generation + 1);
  const std::string before(reinterpret_cast<const char*>(bench.pool().pages()), 4096);
  EXPECT_EQ(bench
                .RunOne({.sequence = SequenceId(1),
                         .start_position = 1,
                         .token_ids = {2},
                         .num_draft_tokens = 4})
                .status.code(),
            absl::StatusCode::kAborted);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bench.pool().pages()), 4096), before);
}

TEST(DraftEngineTest, AttachingIsIdempotentAndANewPoolDropsTheOld) {
  Bench bench;
  bench.Open(1);
  EXPECT_TRUE(bench.engine().AttachPool(bench.path(), kEpoch, absl::Seconds(5)).ok());
  EXPECT_EQ(bench.engine().num_sequences(), 1);

  const SharedPool next = Bench::MakePool(kEpoch + 1);
  const auto server = PoolServer::Start(bench.path() + "2", &next).value();
  ASSERT_TRUE(bench.engine().AttachPool(bench.path() + "2", kEpoch + 1, absl::Seconds(5)).ok());
  unlink((bench.path() + "2.lock").c_str());
  EXPECT_EQ(bench.engine().num_sequences(), 0);
  EXPECT_EQ(bench.Run({}).status.code(), absl::StatusCode::kAborted);

  // A pool that is not there leaves the draft without one.
  EXPECT_EQ(bench.engine().AttachPool(bench.path(), kEpoch + 2, absl::Seconds(5)).status().code(),
            absl::StatusCode::kAborted);
  EXPECT_EQ(bench.Run({}).status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(bench.engine().AttachPool(bench.path(), 0, absl::Seconds(5)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tandem::draft
