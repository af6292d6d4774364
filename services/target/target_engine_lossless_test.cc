// Speculation must not change the output: neither in a model of which every bit of history
// counts, nor in real ones.
#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include "services/target/target_engine_fixture.h"

namespace tandem::target {
namespace {

std::vector<int32_t> RandomTokens(std::mt19937& random, int32_t count) {
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = random() % 48;
  return ids;
}

// Plain decoding: the prompt in one piece, then token by token.
std::vector<int32_t> PlainOutput(const std::vector<int32_t>& prompt, int32_t count,
                                 const SamplingParams& params, ExecutorKind kind) {
  Bench bench(kind);
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

// Penalties ask for whole rows: a device is asked for less.
SamplingParams Params(float temperature, uint64_t seed, ExecutorKind kind,
                      const std::vector<int32_t>& prompt) {
  const bool is_device = kind == ExecutorKind::kFakeDevice;
  return {.temperature = temperature,
          .top_k = is_device && seed % 3 == 0 ? 0 : 20,
          .top_p = is_device && seed % 2 == 0 ? 1.0f : 0.95f,
          .repetition_penalty = is_device ? 1.0f : 1.1f,
          .presence_penalty = is_device ? 0.0f : 0.2f,
          .seed = seed,
          .prompt_tokens = static_cast<int32_t>(prompt.size()),
          .used_vocab_size = 48};
}

// Whose plain output is the measure: a device's rows are the same.
ExecutorKind PlainKind(ExecutorKind kind) {
  return kind == ExecutorKind::kFakeDevice ? ExecutorKind::kFake : kind;
}

// Up to 9 drafts, each right three times out of four.
std::vector<int32_t> SomeDrafts(std::mt19937& random, absl::Span<const int32_t> right) {
  std::vector<int32_t> drafts(random() % std::min<size_t>(right.size(), 10));
  for (size_t i = 0; i < drafts.size(); ++i) {
    drafts[i] = random() % 4 != 0 ? right[i] : static_cast<int32_t>(random() % 48);
  }
  return drafts;
}

// A device's row is read where an id leads that is never chosen.
void ExpectFewRowsRead(const Bench& bench, ExecutorKind kind) {
  if (kind != ExecutorKind::kFakeDevice) return;
  EXPECT_LT(bench.num_rows_read(), 60);
}

// Several sequences with drafts that are right by chance, wrong, or cut short, rewinds
// to earlier positions, prompts in chunks, and sequences that sit steps out.
void ExpectSameWithDrafts(ExecutorKind kind, float temperature, uint32_t seed) {
  SCOPED_TRACE(testing::Message() << "temperature " << temperature << " seed " << seed);
  std::mt19937 random(seed);
  constexpr int32_t kCount = 40;
  struct Stream {
    std::vector<int32_t> prompt, plain, history;
    int32_t num_run = 0;  // positions in the cache
  };
  Bench bench(kind);
  std::map<int64_t, Stream> streams;
  WorkerStep step;
  for (int64_t id = 1; id <= 4; ++id) {
    Stream& stream = streams[id];
    stream.prompt = RandomTokens(random, 1 + random() % 80);
    const SamplingParams params = Params(temperature, seed * 10 + id, kind, stream.prompt);
    stream.plain = PlainOutput(stream.prompt, kCount, params, PlainKind(kind));
    stream.history = stream.prompt;
    step.open.push_back({.sequence = SequenceId(id), .sampling = params});
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
      if (!is_chunk) {
        entry.draft_token_ids =
            SomeDrafts(random, absl::MakeSpan(stream.plain).subspan(length - stream.prompt.size()));
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
  ExpectFewRowsRead(bench, kind);
  for (const auto& [id, stream] : streams) {
    const std::vector<int32_t> output(stream.history.begin() + stream.prompt.size(),
                                      stream.history.begin() + stream.prompt.size() + kCount);
    ASSERT_EQ(output, stream.plain) << "sequence " << id;
  }
}

class TargetEngineLosslessTest : public testing::TestWithParam<ExecutorKind> {
 protected:
  int32_t num_seeds() const { return PlainKind(GetParam()) == ExecutorKind::kFake ? 15 : 4; }
};

TEST_P(TargetEngineLosslessTest, GreedyOutputIsTheSameWithAnyDrafts) {
  for (int32_t seed = 0; seed < num_seeds(); ++seed) ExpectSameWithDrafts(GetParam(), 0.0f, seed);
}

TEST_P(TargetEngineLosslessTest, CoupledOutputIsTheSameWithAnyDrafts) {
  for (int32_t seed = 100; seed < 100 + num_seeds(); ++seed) {
    ExpectSameWithDrafts(GetParam(), 1.3f, seed);
  }
}

// A sequence that begins with pages another one filled, as the prefix cache has it: its
// output is that of running all tokens, penalties and noise included.
TEST_P(TargetEngineLosslessTest, APrefixInPagesOfAnotherSequenceChangesNothing) {
  for (int32_t seed = 0; seed < num_seeds(); ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    constexpr int32_t kCount = 20;
    const int32_t num_cached = kPagePositions * static_cast<int32_t>(1 + random() % 8);
    const std::vector<int32_t> prefix = RandomTokens(random, num_cached);
    std::vector<int32_t> prompt = prefix;
    for (const int32_t id : RandomTokens(random, 1 + random() % 40)) prompt.push_back(id);
    const int32_t length = static_cast<int32_t>(prompt.size());
    const float temperature = random() % 2 == 0 ? 0.0f : 1.2f;
    const SamplingParams params = Params(temperature, seed, GetParam(), prompt);

    Bench bench(GetParam());
    bench.Open(1);
    std::vector<worker::PageEntry> pages = bench.Pages(num_cached);
    const VerifyResult filled =
        bench.RunOne({.sequence = SequenceId(1), .token_ids = prefix, .pages = pages});
    ASSERT_TRUE(filled.status.ok()) << filled.status;
    for (const worker::PageEntry& page : bench.Pages(length + kCount - num_cached)) {
      pages.push_back(page);
    }
    WorkerStep open;
    open.open.push_back(
        {.sequence = SequenceId(2), .sampling = params, .cached_token_ids = prefix});
    ASSERT_TRUE(bench.Run(open).status.ok());
    SequenceStep step = {.sequence = SequenceId(2),
                         .start_position = num_cached,
                         .token_ids = {prompt.begin() + num_cached, prompt.end()},
                         .pages = pages,
                         .sample = true};
    std::vector<int32_t> output;
    while (static_cast<int32_t>(output.size()) < kCount) {
      const VerifyResult result = bench.RunOne(step);
      ASSERT_TRUE(result.status.ok()) << result.status;
      output.push_back(result.next_token_id);
      step = {.sequence = SequenceId(2),
              .start_position = length + static_cast<int32_t>(output.size()) - 1,
              .token_ids = {output.back()},
              .sample = true};
    }
    EXPECT_EQ(output, PlainOutput(prompt, kCount, params, PlainKind(GetParam())));
  }
}

std::string KindName(const testing::TestParamInfo<ExecutorKind>& info) {
  constexpr const char* kNames[] = {"Fake", "FakeDevice", "TinyF16", "TinyQ8", "TinyQ4"};
  return kNames[static_cast<int>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(Executors, TargetEngineLosslessTest,
                         testing::Values(ExecutorKind::kFake, ExecutorKind::kFakeDevice,
                                         ExecutorKind::kTinyF16, ExecutorKind::kTinyQ8,
                                         ExecutorKind::kTinyQ4),
                         KindName);

}  // namespace
}  // namespace tandem::target
