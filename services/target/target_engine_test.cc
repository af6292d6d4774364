#include "services/target/target_engine.h"

#include <cmath>
#include <functional>
#include <random>

#include "absl/strings/match.h"
#include "common/worker/draft_probs.h"
#include "services/target/target_engine_fixture.h"

namespace tandem::target {
namespace {

TEST(TargetEngineTest, DamagedWeightsFailTheRequestAndNotTheProcess) {
  auto executor = worker::LoadTinyModel(
      {.is_damaged = true},
      {.limits = {.max_step_tokens = 64, .max_logits_rows = 40, .max_positions = 64},
       .page_positions = kPagePositions});
  SharedPool pool =
      SharedPool::Create({.epoch = kEpoch, .num_pages = 4, .page_bytes = 65536}).value();
  ASSERT_TRUE(executor->AttachKv({.base = pool.pages(), .page_bytes = 65536, .num_pages = 4}).ok());
  TargetEngine engine = TargetEngine::Create(executor.get(), pool.control(), 4).value();
  const VerifyStepResult result = engine.Run({.pool_epoch = kEpoch,
                                              .open = {{SequenceId(1), {}}},
                                              .sequences = {{.sequence = SequenceId(1),
                                                             .token_ids = {1, 2},
                                                             .pages = {{PageId(0), 0}},
                                                             .sample = true}}});
  ASSERT_TRUE(result.status.ok());
  EXPECT_EQ(result.results[0].status.code(), absl::StatusCode::kInternal);
}

TEST(TargetEngineTest, LogprobsComeForEachToken) {
  Bench bench;
  bench.Open(1, {.logprobs = true, .top_logprobs = 3});
  const VerifyResult result = bench.RunOne({.sequence = SequenceId(1),
                                            .token_ids = {1, 2, 3},
                                            .pages = bench.Pages(16),
                                            .sample = true});
  ASSERT_TRUE(result.status.ok());
  ASSERT_EQ(result.logprobs.size(), 1u);
  EXPECT_EQ(result.logprobs[0].top.size(), 3u);
  EXPECT_EQ(result.logprobs[0].top[0].first, result.next_token_id);
}

// A page that was handed on must not be touched by whoever had it before.
TEST(TargetEngineTest, StalePageFailsItsSequenceOnlyAndIsNotTouched) {
  Bench bench;
  bench.Open(1);
  bench.Open(2);
  const auto pages = bench.Pages(24);
  ASSERT_TRUE(
      bench.RunOne({.sequence = SequenceId(1), .token_ids = {1, 2}, .pages = pages}).status.ok());
  bench.free().Release({pages[0].page});
  bench.pool().control().SetGeneration(pages[0].page, pages[0].generation + 1);
  const std::string before = bench.PageBytes();
  const VerifyResult stale = bench.RunOne(
      {.sequence = SequenceId(1), .start_position = 2, .token_ids = {3}, .sample = true});
  EXPECT_EQ(stale.status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(bench.PageBytes(), before);

  const VerifyStepResult both = bench.Run(
      {.sequences = {
           {.sequence = SequenceId(1), .start_position = 1, .token_ids = {3}, .sample = true},
           {.sequence = SequenceId(2),
            .token_ids = {4, 5},
            .pages = bench.Pages(8),
            .sample = true}}});
  EXPECT_EQ(both.results[0].status.code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(both.results[1].status.ok()) << both.results[1].status;

  // With new pages, filled anew, it goes on.
  EXPECT_TRUE(bench
                  .RunOne({.sequence = SequenceId(1),
                           .start_position = 0,
                           .token_ids = {1, 2, 3},
                           .pages = bench.Pages(24),
                           .sample = true})
                  .status.ok());
}

struct BadEntry {
  const char* what;
  absl::StatusCode code;
  std::function<void(SequenceStep&)> spoil;
};

using absl::StatusCode;

const BadEntry kBadEntries[] = {
    {"unknown sequence", StatusCode::kNotFound, [](auto& s) { s.sequence = SequenceId(9); }},
    {"gap", StatusCode::kAborted, [](auto& s) { s.start_position = 6; }},
    {"negative position", StatusCode::kInvalidArgument, [](auto& s) { s.start_position = -1; }},
    {"token over", StatusCode::kInvalidArgument, [](auto& s) { s.token_ids = {50}; }},
    {"token below", StatusCode::kInvalidArgument, [](auto& s) { s.token_ids = {-1}; }},
    {"draft over", StatusCode::kInvalidArgument, [](auto& s) { s.draft_token_ids = {50}; }},
    {"17 drafts", StatusCode::kInvalidArgument, [](auto& s) { s.draft_token_ids.resize(17); }},
    {"drafts without sample", StatusCode::kInvalidArgument,
     [](auto& s) {
       s.sample = false;
       s.draft_token_ids = {1};
     }},
    {"sample of nothing", StatusCode::kInvalidArgument, [](auto& s) { s.token_ids.clear(); }},
    {"beyond its pages", StatusCode::kInvalidArgument, [](auto& s) { s.token_ids.resize(30); }},
    {"beyond the context", StatusCode::kInvalidArgument,
     [](auto& s) { s.token_ids.resize(100000); }},
    {"page over", StatusCode::kInvalidArgument,
     [](auto& s) {
       s.pages = {{PageId(kNumPages), 1}};
       s.first_page = 1;
     }},
    {"page below", StatusCode::kInvalidArgument,
     [](auto& s) {
       s.pages = {{PageId(-1), 1}};
       s.first_page = 1;
     }},
    {"page from nowhere", StatusCode::kInvalidArgument,
     [](auto& s) {
       s.pages = {{PageId(1), 1}};
       s.first_page = 9;
     }},
    {"first page below", StatusCode::kInvalidArgument,
     [](auto& s) {
       s.pages = {{PageId(1), 1}};
       s.first_page = -2;
     }},
    {"far too many pages", StatusCode::kInvalidArgument,
     [](auto& s) {
       s.pages.assign(1000, {PageId(1), 1});
     }},
    {"slot over", StatusCode::kInvalidArgument, [](auto& s) { s.draft_probs_slot = 2; }},
    {"slot below", StatusCode::kInvalidArgument, [](auto& s) { s.draft_probs_slot = -2; }},
    {"position overflow", StatusCode::kAborted, [](auto& s) { s.start_position = INT32_MAX; }},
    {"not finite", StatusCode::kInternal, [](auto& s) { s.token_ids = {kPoison}; }},
    {"pass fails", StatusCode::kInternal, [](auto& s) { s.token_ids = {kFailing}; }},
};

TEST(TargetEngineTest, BadEntriesFailAloneAndTheNextGoodStepWorks) {
  Bench bench;
  bench.Open(1);
  bench.Open(2);
  const SequenceStep first = {
      .sequence = SequenceId(1), .token_ids = {1, 2, 3}, .pages = bench.Pages(16)};
  ASSERT_TRUE(bench.RunOne(first).status.ok());
  const SequenceStep good = {
      .sequence = SequenceId(1), .start_position = 3, .token_ids = {4}, .sample = true};
  const SequenceStep other = {
      .sequence = SequenceId(2), .token_ids = {7, 8}, .pages = bench.Pages(16), .sample = true};
  const int32_t expected = bench.RunOne(good).next_token_id;
  const int32_t expected_other = bench.RunOne(other).next_token_id;
  for (const BadEntry& bad : kBadEntries) {
    SCOPED_TRACE(bad.what);
    SequenceStep entry = good;
    bad.spoil(entry);
    const VerifyStepResult result = bench.Run({.sequences = {entry, other}});
    ASSERT_TRUE(result.status.ok());
    EXPECT_EQ(result.results[0].status.code(), bad.code) << result.results[0].status;
    EXPECT_EQ(result.results[1].next_token_id, expected_other) << result.results[1].status;
    EXPECT_EQ(bench.RunOne(good).next_token_id, expected);
  }
}

TEST(TargetEngineTest, SamplingThatCannotBeUsedIsReportedWithItsSequence) {
  const float nan = std::nanf("");
  const std::vector<SamplingParams> kBad = {
      {.temperature = nan},
      {.temperature = -1.0f},
      {.top_k = -1},
      {.top_p = 0.0f},
      {.top_p = 1.5f},
      {.min_p = nan},
      {.repetition_penalty = 0.0f},
      {.frequency_penalty = INFINITY},
      {.logit_bias = {{1, nan}}},
      {.rule = static_cast<AcceptanceRule>(7)},
      {.prompt_tokens = -1},
      {.top_logprobs = 100000},
  };
  Bench bench;
  const auto pages = bench.Pages(8);
  for (const SamplingParams& params : kBad) {
    const VerifyStepResult result = bench.Run(
        {.open = {{SequenceId(1), params}},
         .sequences = {
             {.sequence = SequenceId(1), .token_ids = {1}, .pages = pages, .sample = true}}});
    ASSERT_TRUE(result.status.ok());
    EXPECT_EQ(result.results[0].status.code(), absl::StatusCode::kInvalidArgument);
  }
  bench.Open(1);
  EXPECT_TRUE(
      bench.RunOne({.sequence = SequenceId(1), .token_ids = {1}, .pages = pages}).status.ok());
}

TEST(TargetEngineTest, AllTokensBannedIsAnErrorOfTheSequence) {
  Bench bench;
  SamplingParams params;
  for (int32_t id = 0; id < 50; ++id) params.logit_bias.emplace_back(id, -100.0f);
  bench.Open(1, params);
  const VerifyResult result = bench.RunOne(
      {.sequence = SequenceId(1), .token_ids = {1}, .pages = bench.Pages(8), .sample = true});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
}

TEST(TargetEngineTest, WholeStepFails) {
  Bench bench;
  EXPECT_EQ(bench.engine().Run({.pool_epoch = kEpoch + 1}).status.code(),
            absl::StatusCode::kAborted);
}

// A full table is the end of none that are in it, nor of the step.
TEST(TargetEngineTest, WhatFindsNoPlaceIsRefusedAndNothingElse) {
  Bench bench;
  for (int64_t id = 0; id < 100; ++id) bench.Open(id);
  const SequenceStep entry = {
      .sequence = SequenceId(7), .token_ids = {1}, .pages = bench.Pages(8), .sample = true};
  SequenceStep refused = entry;
  refused.sequence = SequenceId(100);
  refused.pages = bench.Pages(8);
  const VerifyStepResult result =
      bench.Run({.open = {{SequenceId(100), {}}}, .sequences = {refused, entry}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.results[0].status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(absl::StrContains(result.results[0].status.message(), "100 are, at most 100"))
      << result.results[0].status;
  EXPECT_TRUE(result.results[1].status.ok());
  // Later it is simply not there.
  EXPECT_EQ(bench.RunOne(refused).status.code(), absl::StatusCode::kNotFound);
  // One that is there already starts anew.
  EXPECT_TRUE(
      bench.Run({.open = {{SequenceId(7), {}}}, .sequences = {entry}}).results[0].status.ok());
}

TEST(TargetEngineTest, ReleasesMakeRoomForWhatTheStepOpens) {
  Bench bench;
  for (int64_t id = 0; id < 100; ++id) bench.Open(id);
  const VerifyStepResult result = bench.Run({.open = {{SequenceId(100), {}}},
                                             .sequences = {{.sequence = SequenceId(100),
                                                            .token_ids = {1},
                                                            .pages = bench.Pages(8),
                                                            .sample = true}},
                                             .release = {SequenceId(3), SequenceId(777)}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(result.results[0].status.ok()) << result.results[0].status;
  EXPECT_EQ(bench.engine().num_sequences(), 100);
  bench.engine().DropSequences();
  EXPECT_EQ(bench.engine().num_sequences(), 0);
}

TEST(TargetEngineTest, OneSequenceTwiceInAStepIsRefusedTheSecondTime) {
  Bench bench;
  bench.Open(1);
  const SequenceStep entry = {
      .sequence = SequenceId(1), .token_ids = {1}, .pages = bench.Pages(8), .sample = true};
  const VerifyStepResult result = bench.Run({.sequences = {entry, entry}});
  EXPECT_TRUE(result.results[0].status.ok());
  EXPECT_EQ(result.results[1].status.code(), absl::StatusCode::kInvalidArgument);
}

TEST(TargetEngineTest, EntryWithoutTokensUpdatesPagesAndRewinds) {
  Bench bench;
  bench.Open(1);
  ASSERT_TRUE(
      bench.RunOne({.sequence = SequenceId(1), .token_ids = {1, 2, 3}, .pages = bench.Pages(8)})
          .status.ok());
  const int32_t forwards = bench.num_forwards();
  ASSERT_TRUE(bench
                  .RunOne({.sequence = SequenceId(1),
                           .start_position = 2,
                           .first_page = 1,
                           .pages = bench.Pages(8)})
                  .status.ok());
  EXPECT_EQ(bench.num_forwards(), forwards);
  EXPECT_EQ(bench.RunOne({.sequence = SequenceId(1), .start_position = 3, .token_ids = {4}})
                .status.code(),
            absl::StatusCode::kAborted);
  const std::vector<int32_t> many(12, 5);
  EXPECT_TRUE(bench.RunOne({.sequence = SequenceId(1), .start_position = 2, .token_ids = many})
                  .status.ok());
}

// Under REJECTION a slot that is not about these drafts must not be believed: they count
// as certain guesses then, and the step works.
TEST(TargetEngineTest, SlotOfOtherDraftsIsNotBelieved) {
  Bench bench;
  bench.Open(1, {.temperature = 1.0f, .rule = AcceptanceRule::kRejection});
  const SequenceStep entry = {.sequence = SequenceId(1),
                              .token_ids = {1, 2},
                              .pages = bench.Pages(16),
                              .draft_probs_slot = 0,
                              .draft_token_ids = {3},
                              .sample = true};
  SequenceStep looked_up = entry;
  looked_up.draft_probs_slot = -1;
  const VerifyResult certain = bench.RunOne(looked_up);
  DraftProbsSlot* slot = bench.pool().control().draft_probs_slot(0);
  worker::BeginDraftProbs(SequenceId(1), 2, slot);
  worker::AppendDraftProbs(4, {.ids = {4}, .probs = {1.0f}}, slot);
  const VerifyResult other = bench.RunOne(entry);
  EXPECT_EQ(other.num_accepted, certain.num_accepted);
  EXPECT_EQ(other.next_token_id, certain.next_token_id);
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) {
    auto* bytes = reinterpret_cast<uint8_t*>(slot);
    for (int k = 0; k < 40; ++k) bytes[random() % sizeof(DraftProbsSlot)] = random();
    EXPECT_TRUE(bench.RunOne(entry).status.ok());
  }
}

TEST(TargetEngineTest, LimitsTooSmallForAVerifyAreRefused) {
  FakeExecutor executor(
      {.limits = {.max_step_tokens = 16, .max_logits_rows = 40, .max_positions = 64}});
  const SharedPool pool =
      SharedPool::Create({.epoch = 1, .num_pages = 1, .page_bytes = 64}).value();
  EXPECT_EQ(TargetEngine::Create(&executor, pool.control(), 1).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tandem::target
