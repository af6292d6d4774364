#include "services/target/target_engine.h"

#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>

#include "common/ipc/pool_exchange.h"
#include "common/kv/page_pool.h"
#include "common/worker/draft_probs.h"
#include "common/worker/fake_executor.h"
#include "gtest/gtest.h"

namespace tandem::target {
namespace {

using worker::FakeExecutor;
using worker::FakeExecutorOptions;
using worker::SequenceStep;
using worker::VerifyResult;
using worker::VerifyStepResult;
using worker::WorkerStep;

constexpr int32_t kPagePositions = 8;
constexpr int32_t kNumPages = 96;
constexpr int64_t kEpoch = 5;
constexpr int32_t kPoison = 48;
constexpr int32_t kFailing = 49;

std::vector<int32_t> RandomTokens(std::mt19937& random, int32_t count) {
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = random() % 48;
  return ids;
}

// A target with a pool, and the part of the gateway that hands out pages.
class Bench {
 public:
  explicit Bench(FakeExecutorOptions options = {.poison_token = kPoison, .failing_token = kFailing})
      : executor_(options),
        pool_(SharedPool::Create({.epoch = kEpoch,
                                  .num_pages = kNumPages,
                                  .page_bytes = 2048,
                                  .num_draft_probs_slots = 2})
                  .value()),
        free_(kNumPages) {
    EXPECT_TRUE(
        executor_.AttachKv({.base = pool_.pages(), .page_bytes = 2048, .num_pages = kNumPages})
            .ok());
    engine_.emplace(TargetEngine::Create(&executor_, pool_.control(), 100).value());
  }

  // Pages for `positions` positions, with their generations published.
  std::vector<worker::PageEntry> Pages(int32_t positions) {
    std::vector<worker::PageEntry> entries;
    const int32_t count = (positions + kPagePositions - 1) / kPagePositions;
    const std::vector<PageId> pages = free_.Allocate(Role::kTarget, count).value();
    for (const PageId page : pages) {
      entries.push_back({page, free_.generation(page)});
      pool_.control().SetGeneration(page, free_.generation(page));
    }
    return entries;
  }

  VerifyStepResult Run(WorkerStep step) {
    step.pool_epoch = kEpoch;
    return engine_->Run(step);
  }
  // One sequence's entry, alone in a step.
  VerifyResult RunOne(SequenceStep step) {
    const VerifyStepResult result = Run({.sequences = {std::move(step)}});
    EXPECT_TRUE(result.status.ok()) << result.status;
    return result.results.at(0);
  }
  void Open(int64_t id, SamplingParams params = {}) {
    EXPECT_TRUE(Run({.open = {{SequenceId(id), std::move(params)}}}).status.ok());
  }

  TargetEngine& engine() { return *engine_; }
  SharedPool& pool() { return pool_; }
  KvPagePool& free() { return free_; }
  FakeExecutor& executor() { return executor_; }
  std::string PageBytes() const {
    return {reinterpret_cast<const char*>(pool_.pages()), size_t{kNumPages} * 2048};
  }

 private:
  FakeExecutor executor_;
  SharedPool pool_;
  KvPagePool free_;
  std::optional<TargetEngine> engine_;
};

// Plain decoding: the prompt in one piece, then token by token.
std::vector<int32_t> PlainOutput(const std::vector<int32_t>& prompt, int32_t count,
                                 const SamplingParams& params) {
  Bench bench;
  bench.Open(1, params);
  std::vector<int32_t> history = prompt;
  SequenceStep step = {.sequence = SequenceId(1),
                       .start_position = 0,
                       .token_ids = prompt,
                       .pages = bench.Pages(static_cast<int32_t>(prompt.size()) + count + 1),
                       .sample = true};
  while (history.size() < prompt.size() + count) {
    const VerifyResult result = bench.RunOne(step);
    EXPECT_TRUE(result.status.ok()) << result.status;
    history.push_back(result.next_token_id);
    step = {.sequence = SequenceId(1),
            .start_position = static_cast<int32_t>(history.size()) - 1,
            .token_ids = {history.back()},
            .sample = true};
  }
  return {history.begin() + prompt.size(), history.end()};
}

SamplingParams Params(float temperature, uint64_t seed) {
  return {.temperature = temperature,
          .top_k = 20,
          .top_p = 0.95f,
          .repetition_penalty = 1.1f,
          .presence_penalty = 0.2f,
          .seed = seed,
          .used_vocab_size = 48};
}

// Several sequences with drafts that are right by chance, wrong, or cut short, rewinds
// to earlier positions, prompts in chunks, and sequences that sit steps out.
void ExpectSameWithDrafts(float temperature, uint32_t seed) {
  SCOPED_TRACE(testing::Message() << "temperature " << temperature << " seed " << seed);
  std::mt19937 random(seed);
  constexpr int32_t kCount = 40;
  struct Stream {
    std::vector<int32_t> prompt, plain, history;
    int32_t num_run = 0;  // positions in the cache
  };
  Bench bench;
  std::map<int64_t, Stream> streams;
  WorkerStep step;
  for (int64_t id = 1; id <= 4; ++id) {
    Stream& stream = streams[id];
    stream.prompt = RandomTokens(random, 1 + random() % 80);
    SamplingParams params = Params(temperature, seed * 10 + id);
    params.prompt_tokens = static_cast<int32_t>(stream.prompt.size());
    stream.plain = PlainOutput(stream.prompt, kCount, params);
    stream.history = stream.prompt;
    step.open.push_back({SequenceId(id), params});
  }
  int32_t num_accepted = 0;
  bool is_first = true;
  for (bool more = true; more; step = {}) {
    more = false;
    for (auto& [id, stream] : streams) {
      const auto length = static_cast<int32_t>(stream.history.size());
      const int32_t left = static_cast<int32_t>(stream.prompt.size()) + kCount - length;
      if (left <= 0) continue;
      more = true;
      if (!is_first && random() % 4 == 0) continue;
      if (random() % 5 == 0) stream.num_run = random() % (stream.num_run + 1);  // rewind
      const bool is_chunk = random() % 4 == 0 && length - stream.num_run > 1;
      const int32_t end =
          is_chunk ? stream.num_run + 1 + random() % (length - stream.num_run - 1) : length;
      SequenceStep entry = {
          .sequence = SequenceId(id),
          .start_position = stream.num_run,
          .token_ids = {stream.history.begin() + stream.num_run, stream.history.begin() + end},
          .sample = !is_chunk};
      if (is_first) entry.pages = bench.Pages(140);
      const int32_t num_drafts = is_chunk ? 0 : random() % std::min(left, 10);
      for (int32_t i = 0; i < num_drafts; ++i) {
        const bool is_right = random() % 4 != 0;
        const size_t position = length + i - stream.prompt.size();
        entry.draft_token_ids.push_back(is_right ? stream.plain[position]
                                                 : static_cast<int32_t>(random() % 48));
      }
      stream.num_run = end;
      step.sequences.push_back(std::move(entry));
    }
    is_first = false;
    const VerifyStepResult result = bench.Run(step);
    ASSERT_TRUE(result.status.ok()) << result.status;
    for (size_t i = 0; i < step.sequences.size(); ++i) {
      const VerifyResult& verified = result.results[i];
      ASSERT_TRUE(verified.status.ok()) << verified.status;
      const SequenceStep& entry = step.sequences[i];
      if (!entry.sample) continue;
      Stream& stream = streams[static_cast<int64_t>(entry.sequence)];
      stream.history.insert(stream.history.end(), entry.draft_token_ids.begin(),
                            entry.draft_token_ids.begin() + verified.num_accepted);
      stream.num_run += verified.num_accepted;
      num_accepted += verified.num_accepted;
      stream.history.push_back(verified.next_token_id);
    }
  }
  EXPECT_GT(num_accepted, 20);
  for (const auto& [id, stream] : streams) {
    const std::vector<int32_t> output(stream.history.begin() + stream.prompt.size(),
                                      stream.history.begin() + stream.prompt.size() + kCount);
    ASSERT_EQ(output, stream.plain) << "sequence " << id;
  }
}

TEST(TargetEngineTest, GreedyOutputIsTheSameWithAnyDrafts) {
  for (uint32_t seed = 0; seed < 15; ++seed) ExpectSameWithDrafts(0.0f, seed);
}

TEST(TargetEngineTest, CoupledOutputIsTheSameWithAnyDrafts) {
  for (uint32_t seed = 0; seed < 15; ++seed) ExpectSameWithDrafts(1.3f, 100 + seed);
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

TEST(TargetEngineTest, BadEntriesFailAloneAndTheNextGoodStepWorks) {
  using absl::StatusCode;
  const BadEntry kBad[] = {
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
  for (const BadEntry& bad : kBad) {
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
  for (int64_t id = 0; id < 100; ++id) bench.Open(id);
  EXPECT_EQ(bench.Run({.open = {{SequenceId(100), {}}}}).status.code(),
            absl::StatusCode::kResourceExhausted);
  bench.Run({.release = {SequenceId(3), SequenceId(777)}});
  bench.Open(100);
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
  const int32_t forwards = bench.executor().num_forwards();
  ASSERT_TRUE(bench
                  .RunOne({.sequence = SequenceId(1),
                           .start_position = 2,
                           .first_page = 1,
                           .pages = bench.Pages(8)})
                  .status.ok());
  EXPECT_EQ(bench.executor().num_forwards(), forwards);
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
