#include "common/kernels/cuda/draft_loop.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "common/kernels/cuda/device_test_memory.h"
#include "common/speculation/philox.h"

namespace tandem::cuda {
namespace {

#if CUDART_VERSION >= 13000

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What a head leaves of rows of `num_ids` logits.
std::vector<RowChoice> ChoicesOf(const std::vector<float>& logits, int32_t num_ids) {
  std::vector<RowChoice> choices(logits.size() / static_cast<size_t>(num_ids));
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto bits = std::bit_cast<uint32_t>(logits[i] + 0.0f);
    const uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    const auto place = static_cast<uint32_t>(i % static_cast<size_t>(num_ids));
    uint64_t& rank = choices[i / static_cast<size_t>(num_ids)].rank;
    rank = std::max(rank, uint64_t{ordered} << 32 | uint32_t{~place});
  }
  return choices;
}

struct DraftTestCase {
  int32_t num_ids = 0;        // of a row of logits
  std::vector<float> logits;  // [rows][num_ids]
  std::vector<DraftRow> rows;
  std::vector<int32_t> kept_ids;
};

constexpr int32_t kMaxTokens = 8;

// One step's end, in a graph whose condition sets a flag.
struct Next {
  explicit Next(const DraftTestCase& test) {
    const auto num_drafts = static_cast<int32_t>(test.rows.size());
    // Blocks of rows that no draft has.
    const int32_t max_rows = num_drafts + 3;
    std::vector<DraftRow> padded = test.rows;
    padded.resize(static_cast<size_t>(max_rows), DraftRow{.max_tokens = 7});
    const DeviceArray<int32_t> count(std::vector<int32_t>{num_drafts});
    const DeviceArray<float> device_logits(test.logits);
    const DeviceArray<RowChoice> device_choices(ChoicesOf(test.logits, test.num_ids));
    const DeviceArray<DraftRow> device_rows(padded);
    const DeviceArray<int32_t> kept_ids(test.kept_ids.empty() ? std::vector<int32_t>{0}
                                                              : test.kept_ids);
    const DeviceArray<NoisyChoice> device_noisy(std::vector<NoisyChoice>(test.rows.size()));
    const DeviceArray<uint32_t> num_done(std::vector<uint32_t>{0});
    const DeviceArray<DraftedToken> device_drafted(test.rows.size() * kMaxTokens);
    const DeviceArray<StepCounts> counts(1);
    const DeviceArray<int32_t> token_rows(test.rows.size());
    const DeviceArray<int32_t> device_positions(test.rows.size());
    const DeviceArray<RowGroup> device_groups(test.rows.size());
    const DeviceArray<uint32_t> flag(std::vector<uint32_t>{0});
    Run({.num_drafts = count.get(),
         .rows = device_rows.get(),
         .logits = {.logits = device_logits.get(),
                    .stride = test.num_ids,
                    .num_ids = test.num_ids,
                    .num_rows = count.get(),
                    .choices = device_choices.get()},
         .kept_ids = test.kept_ids.empty() ? nullptr : kept_ids.get(),
         .noisy = device_noisy.get(),
         .num_done = num_done.get(),
         .drafted = device_drafted.get(),
         .max_tokens = kMaxTokens,
         .counts = counts.get(),
         .token_rows = token_rows.get(),
         .positions = device_positions.get(),
         .groups = device_groups.get()},
        max_rows, flag.get());
    rows = device_rows.Read();
    noisy = device_noisy.Read();
    drafted = device_drafted.Read();
    tokens = token_rows.Read();
    positions = device_positions.Read();
    groups = device_groups.Read();
    goes_on = flag.Read()[0] != 0;
    EXPECT_EQ(num_done.Read()[0], 0u);
    EXPECT_EQ(counts.Read()[0].num_rows, num_drafts);
  }

  static void Run(const DraftLoopCall& call, int32_t max_rows, uint32_t* flag) {
    cudaStream_t stream = nullptr;
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    cudaGraph_t graph = nullptr;
    ASSERT_EQ(cudaGraphCreate(&graph, 0), cudaSuccess);
    cudaGraphConditionalHandle condition;
    ASSERT_EQ(cudaGraphConditionalHandleCreate(&condition, graph, 0, 0), cudaSuccess);
    ASSERT_EQ(cudaStreamBeginCaptureToGraph(stream, graph, nullptr, nullptr, 0,
                                            cudaStreamCaptureModeThreadLocal),
              cudaSuccess);
    ASSERT_EQ(LaunchNextDrafts(call, max_rows, condition, {.stream = stream}), cudaSuccess);
    cudaStreamCaptureStatus state;
    const cudaGraphNode_t* nodes = nullptr;
    size_t num_nodes = 0;
    ASSERT_EQ(
        cudaStreamGetCaptureInfo(stream, &state, nullptr, nullptr, &nodes, nullptr, &num_nodes),
        cudaSuccess);
    ASSERT_EQ(num_nodes, 1u);
    const cudaGraphNode_t last = nodes[0];
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    cudaGraphNodeParams branch = {};
    branch.type = cudaGraphNodeTypeConditional;
    branch.conditional.handle = condition;
    branch.conditional.type = cudaGraphCondTypeIf;
    branch.conditional.size = 1;
    cudaGraphNode_t node = nullptr;
    ASSERT_EQ(cudaGraphAddNode(&node, graph, &last, nullptr, 1, &branch), cudaSuccess);
    const cudaMemsetParams set = {
        .dst = flag, .pitch = 0, .value = 1, .elementSize = 4, .width = 1, .height = 1};
    ASSERT_EQ(cudaGraphAddMemsetNode(&node, branch.conditional.phGraph_out[0], nullptr, 0, &set),
              cudaSuccess);
    cudaGraphExec_t executable = nullptr;
    ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
    ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
  }

  // The token that row `i` of `test` got in this step.
  const DraftedToken& token(const DraftTestCase& test, size_t i) const {
    return drafted[i * kMaxTokens + static_cast<size_t>(test.rows[i].num_tokens)];
  }

  std::vector<DraftRow> rows;
  std::vector<NoisyChoice> noisy;
  std::vector<DraftedToken> drafted;
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;
  std::vector<RowGroup> groups;
  bool goes_on = false;
};

// A row by the definition, in doubles: what truncation keeps is all from `edge` on.
struct Reference {
  Reference(const DraftTestCase& test, size_t index) {
    const DraftRow& row = test.rows[index];
    const DraftSampling& sampling = row.sampling;
    const float* logits = test.logits.data() + index * static_cast<size_t>(test.num_ids);
    const float greatest = *std::max_element(logits, logits + test.num_ids);
    const GumbelNoise noise(sampling.seed, sampling.position + row.num_tokens);
    for (int32_t place = 0; place < test.num_ids; ++place) {
      const int32_t id = test.kept_ids.empty() ? place : test.kept_ids[place];
      if (id >= sampling.num_ids) continue;
      const double value = double{logits[place] - greatest} * sampling.inverse_temperature;
      scaled.push_back(value);
      scores.push_back(value + noise.At(id));
      places.push_back(place);
    }
    std::vector<double> sorted = scaled;
    std::sort(sorted.rbegin(), sorted.rend());
    size_t num_kept = sorted.size();
    if (sampling.top_k > 0) num_kept = std::min(num_kept, static_cast<size_t>(sampling.top_k));
    if (sampling.top_p < 1.0f) {
      double all = 0.0;
      for (size_t i = 0; i < num_kept; ++i) all += std::exp(sorted[i]);
      double sum = 0.0;
      size_t count = 0;
      while (count < num_kept && sum < sampling.top_p * all) sum += std::exp(sorted[count++]);
      num_kept = count;
    }
    edge = std::max(sorted[num_kept - 1], double{sampling.lowest});
    for (size_t i = 0; i < scaled.size(); ++i) {
      if (scaled[i] >= edge && (place < 0 || scores[i] > score)) {
        place = places[i];
        score = scores[i];
      }
    }
  }
  double SumFrom(double least) const {
    double sum = 0.0;
    for (const double value : scaled) sum += value >= least ? std::exp(value) : 0.0;
    return sum;
  }

  std::vector<double> scaled;
  std::vector<double> scores;
  std::vector<int32_t> places;
  double edge = 0.0;
  int32_t place = -1;  // the winner of what is kept
  double score = 0.0;
};

// Rows as models have them: many far below, a few above.
std::vector<float> RandomLogits(size_t num_rows, int32_t num_ids, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> logits(num_rows * static_cast<size_t>(num_ids));
  std::normal_distribution<float> normal(0.0f, 2.0f);
  for (float& logit : logits) logit = normal(random);
  for (size_t row = 0; row < num_rows; ++row) {
    for (int k = 0; k < 20; ++k) {
      logits[row * static_cast<size_t>(num_ids) + random() % static_cast<uint32_t>(num_ids)] +=
          8.0f + static_cast<float>(random() % 100) / 20.0f;
    }
  }
  return logits;
}

std::vector<DraftSampling> Kinds(int32_t num_ids) {
  return {
      {.inverse_temperature = 1.0f / 0.7f, .num_ids = num_ids},
      {},  // greedy
      {.inverse_temperature = 1.0f, .num_ids = num_ids, .top_k = 10},
      {.inverse_temperature = 1.0f / 0.9f, .num_ids = num_ids - 300, .top_p = 0.9f},
      {.inverse_temperature = 1.0f / 1.3f, .num_ids = num_ids, .lowest = std::log(0.05f)},
      {.inverse_temperature = 0.8f, .num_ids = num_ids, .top_k = 40, .lowest = std::log(0.02f)},
      {.inverse_temperature = 0.5f, .num_ids = num_ids, .top_p = 0.6f, .lowest = std::log(0.01f)},
      {.inverse_temperature = 1e30f, .num_ids = num_ids, .top_p = 0.5f},
      {.inverse_temperature = 0.01f, .num_ids = num_ids, .top_k = 100000},  // all are near
  };
}

DraftTestCase TestCase(int32_t num_ids, int32_t num_rounds, uint32_t seed) {
  DraftTestCase test = {.num_ids = num_ids};
  for (int32_t round = 0; round < num_rounds; ++round) {
    for (const DraftSampling& kind : Kinds(num_ids)) {
      const auto index = static_cast<int32_t>(test.rows.size());
      test.rows.push_back({.token_row = 5,
                           .position = 100 + index,
                           .table_offset = 7 * index,
                           .max_tokens = 1 + index % 4,
                           .min_probability = 0.0f,
                           .num_tokens = index % 3,
                           .sampling = kind});
      if (index % 4 < index % 3) test.rows.back().max_tokens = 6;
      DraftSampling& sampling = test.rows.back().sampling;
      sampling.seed = 0x9876543210u + seed * 1000 + static_cast<uint64_t>(index);
      sampling.position = 1000 + index;
    }
  }
  test.logits = RandomLogits(test.rows.size(), num_ids, seed);
  return test;
}

// Whether the token is the definition's, or one that noise in float and whole bins explain.
bool ExpectTokenOf(const DraftTestCase& test, size_t i, const DraftedToken& token) {
  constexpr double kNoise = 1e-3;
  const DraftSampling& sampling = test.rows[i].sampling;
  const Reference expected(test, i);
  const bool has_bins = sampling.top_k > 0 || sampling.top_p < 1.0f;
  double least = expected.edge - (has_bins ? 1.0 / kBinsOfTemperature : 0.0) - 1e-4;
  if (has_bins && least < -kChoiceReach) least = -kInfinity;
  const auto found = std::find(expected.places.begin(), expected.places.end(), token.place);
  EXPECT_NE(found, expected.places.end()) << "place " << token.place;
  if (found == expected.places.end()) return false;
  const size_t at = static_cast<size_t>(found - expected.places.begin());
  EXPECT_GE(expected.scores[at], expected.score - kNoise);
  EXPECT_GE(expected.scaled[at], std::max(least, double{sampling.lowest} - 1e-4));
  EXPECT_EQ(token.logit, test.logits[i * static_cast<size_t>(test.num_ids) + token.place]);
  EXPECT_GE(1.0 / token.top_probability, expected.SumFrom(expected.edge) * (1 - 1e-3));
  EXPECT_LE(1.0 / token.top_probability, expected.SumFrom(least) * (1 + 1e-3));
  EXPECT_NEAR(token.probability, std::exp(expected.scaled[at]) * token.top_probability, 1e-4);
  return token.place == expected.place;
}

TEST(DraftLoopTest, TokensAreThoseOfTheDefinition) {
  TANDEM_NEEDS_DEVICE();
  for (const int32_t num_ids : {128256, 5000, 333}) {
    const DraftTestCase test = TestCase(num_ids, 3, static_cast<uint32_t>(num_ids));
    const Next next(test);
    int32_t num_sampled = 0;
    int32_t num_equal = 0;
    for (size_t i = 0; i < test.rows.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "row " << i << " of " << num_ids << " ids");
      const DraftedToken& token = next.token(test, i);
      if (test.rows[i].sampling.inverse_temperature > 0.0f) {
        ++num_sampled;
        num_equal += ExpectTokenOf(test, i, token) ? 1 : 0;
        continue;
      }
      const auto row = test.logits.begin() + static_cast<int64_t>(i) * num_ids;
      const auto best = std::max_element(row, row + num_ids);
      EXPECT_EQ(token.place, best - row);
      EXPECT_EQ(token.logit, *best);
      double sum = 0.0;
      for (auto logit = row; logit != row + num_ids; ++logit) sum += std::exp(*logit - *best);
      EXPECT_NEAR(token.top_probability, 1.0 / sum, 1e-5);
      EXPECT_EQ(token.probability, token.top_probability);
    }
    EXPECT_GE(num_equal, num_sampled * 9 / 10);
  }
}

TEST(DraftLoopTest, TheNextStepIsWritten) {
  TANDEM_NEEDS_DEVICE();
  DraftTestCase test = TestCase(5000, 2, 3);
  test.rows[3].min_probability = 1e30f;
  test.rows[4].num_tokens = test.rows[4].max_tokens;  // has ended
  const Next next(test);
  bool any = false;
  for (size_t i = 0; i < test.rows.size(); ++i) {
    SCOPED_TRACE(i);
    const DraftRow& before = test.rows[i];
    const DraftRow& after = next.rows[i];
    const bool has_ended = before.num_tokens == before.max_tokens;
    const int32_t num_tokens = before.num_tokens + (has_ended ? 0 : 1);
    const bool goes_on = !has_ended && num_tokens < before.max_tokens && i != 3;
    any = any || goes_on;
    EXPECT_EQ(after.num_tokens, num_tokens);
    EXPECT_EQ(after.max_tokens, goes_on ? before.max_tokens : num_tokens);
    EXPECT_EQ(after.token_row, goes_on ? next.token(test, i).place : before.token_row);
    EXPECT_EQ(after.position, before.position + (goes_on ? 1 : 0));
    EXPECT_EQ(after.sampling.seed, before.sampling.seed);
    EXPECT_EQ(after.sampling.position, before.sampling.position);
    EXPECT_EQ(next.tokens[i], after.token_row);
    EXPECT_EQ(next.positions[i], after.position);
    EXPECT_EQ(next.groups[i].first_row, static_cast<int32_t>(i));
    EXPECT_EQ(next.groups[i].position, after.position);
    EXPECT_EQ(next.groups[i].table_offset, before.table_offset);
  }
  EXPECT_TRUE(any);
  EXPECT_TRUE(next.goes_on);
  // What has no draft is not touched.
  EXPECT_EQ(next.rows.back().max_tokens, 7);
  for (DraftRow& row : test.rows) row.max_tokens = row.num_tokens + 1;
  EXPECT_FALSE(Next(test).goes_on);
}

// Alone and beside others, first and again: the same bits, and bins as they were.
TEST(DraftLoopTest, RowsDoNotDisturbEachOther) {
  TANDEM_NEEDS_DEVICE();
  const DraftTestCase test = TestCase(20000, 2, 8);
  const Next together(test);
  for (size_t i = 0; i < test.rows.size(); ++i) {
    SCOPED_TRACE(i);
    const auto row = test.logits.begin() + static_cast<int64_t>(i) * test.num_ids;
    const DraftTestCase one = {
        .num_ids = test.num_ids, .logits = {row, row + test.num_ids}, .rows = {test.rows[i]}};
    const DraftedToken alone = Next(one).token(one, 0);
    const DraftedToken& token = together.token(test, i);
    EXPECT_EQ(token.place, alone.place);
    EXPECT_EQ(token.logit, alone.logit);
    EXPECT_EQ(token.probability, alone.probability);
    EXPECT_EQ(token.top_probability, alone.top_probability);
    for (int32_t bin = 0; bin < kChoiceBins; ++bin) {
      ASSERT_EQ(together.noisy[i].bins[bin], 0u);
      ASSERT_EQ(together.noisy[i].best_of_bin[bin], 0u);
    }
  }
}

// A trimmed head's places have ids of their own: noise and what counts are the ids'.
TEST(DraftLoopTest, NoiseIsOfTheIdsThatWereKept) {
  TANDEM_NEEDS_DEVICE();
  DraftTestCase test = TestCase(20000, 3, 5);
  for (int32_t place = 0; place < test.num_ids; ++place) {
    test.kept_ids.push_back(static_cast<int32_t>(int64_t{place} * 7919 % 60013));
  }
  for (DraftRow& row : test.rows) row.sampling.num_ids = 59000;
  const Next next(test);
  int32_t num_sampled = 0;
  int32_t num_equal = 0;
  for (size_t i = 0; i < test.rows.size(); ++i) {
    SCOPED_TRACE(i);
    if (!(test.rows[i].sampling.inverse_temperature > 0.0f)) continue;
    ++num_sampled;
    num_equal += ExpectTokenOf(test, i, next.token(test, i)) ? 1 : 0;
  }
  EXPECT_GE(num_equal, num_sampled * 8 / 10);
}

// What is not finite, or of which nothing is left, ends its own draft and shows.
TEST(DraftLoopTest, ABadRowEndsItsDraftAlone) {
  TANDEM_NEEDS_DEVICE();
  const DraftTestCase good = TestCase(5000, 1, 11);
  const Next expected(good);
  for (const float bad : {std::nanf(""), -std::nanf(""), kInfinity}) {
    for (size_t i = 0; i < good.rows.size(); ++i) {
      SCOPED_TRACE(testing::Message() << bad << " in row " << i);
      DraftTestCase test = good;
      test.logits[i * 5000 + 777] = bad;
      const Next next(test);
      EXPECT_FALSE(std::isfinite(next.token(test, i).top_probability));
      EXPECT_EQ(next.rows[i].max_tokens, next.rows[i].num_tokens);
      for (size_t k = 0; k < good.rows.size(); ++k) {
        if (k == i) continue;
        EXPECT_EQ(next.token(test, k).place, expected.token(good, k).place) << k;
      }
    }
  }
  DraftTestCase test = good;
  test.logits[4999] = 100.0f;  // of an id that does not count
  test.rows[0].sampling.num_ids = 4999;
  test.rows[0].sampling.lowest = 0.0f;
  const Next next(test);
  EXPECT_EQ(next.token(test, 0).place, -1);
  EXPECT_TRUE(std::isnan(next.token(test, 0).top_probability));
  EXPECT_EQ(next.rows[0].max_tokens, next.rows[0].num_tokens);
}

#endif

}  // namespace
}  // namespace tandem::cuda
