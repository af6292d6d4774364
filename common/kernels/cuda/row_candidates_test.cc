#include "common/kernels/cuda/row_candidates.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <vector>

#include "common/kernels/cuda/device_test_memory.h"
#include "common/speculation/reference_candidates.h"

namespace tandem::cuda {
namespace {

constexpr int32_t kIds = 128256;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What a head leaves of rows of kIds logits: the ranks of their greatest.
std::vector<RowChoice> ChoicesOf(const std::vector<float>& logits) {
  std::vector<RowChoice> choices(logits.size() / kIds);
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto bits = std::bit_cast<uint32_t>(logits[i] + 0.0f);
    const uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    const auto id = static_cast<uint32_t>(i % kIds);
    uint64_t& rank = choices[i / kIds].rank;
    rank = std::max(rank, uint64_t{ordered} << 32 | uint32_t{~id});
  }
  return choices;
}

// Found in rows of kIds logits, one query each.
class Found {
 public:
  Found(const std::vector<float>& logits, const std::vector<CandidateQuery>& queries)
      : rows_(queries.size()) {
    const auto num_rows = static_cast<int32_t>(queries.size());
    for (size_t i = 0; i < queries.size(); ++i) rows_[i].query = queries[i];
    const DeviceArray<float> device_logits(logits);
    const DeviceArray<int32_t> count(std::vector<int32_t>{num_rows});
    const DeviceArray<RowChoice> choices(ChoicesOf(logits));
    const DeviceArray<CandidateRow> rows(rows_);
    const DeviceArray<CandidateIds> ids(queries.size());
    EXPECT_EQ(LaunchCandidates({.logits = device_logits.get(),
                                .stride = kIds,
                                .num_logits = kIds,
                                .num_rows = count.get(),
                                .choices = choices.get(),
                                .rows = rows.get(),
                                .ids = ids.get()},
                               num_rows, {}),
              cudaSuccess);
    rows_ = rows.Read();
    ids_ = ids.Read();
  }

  const CandidateRow& row(size_t i) const { return rows_[i]; }
  float exp_sum(size_t i) const {
    float sum = 0.0f;
    for (const float part : rows_[i].exp_sums) sum += part;
    return sum;
  }
  std::map<int32_t, float> contenders(size_t i) const {
    return MapOf(ids_[i].contenders, rows_[i].num_contenders);
  }
  std::map<int32_t, float> band(size_t i, int32_t b) const {
    return MapOf(ids_[i].near[b], rows_[i].num_near[b]);
  }

 private:
  static std::map<int32_t, float> MapOf(const IdLogit* ids, int32_t count) {
    std::map<int32_t, float> logits;
    for (int32_t i = 0; i < count; ++i) logits[ids[i].id] = ids[i].logit;
    EXPECT_EQ(static_cast<int32_t>(logits.size()), count);
    return logits;
  }

  std::vector<CandidateRow> rows_;
  std::vector<CandidateIds> ids_;
};

// Rows as models have them: many far below, a few above; the last one is flat.
std::vector<float> RandomRows(int32_t num_rows, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> logits(static_cast<size_t>(num_rows) * kIds);
  for (int32_t row = 0; row < num_rows; ++row) {
    float* values = logits.data() + static_cast<int64_t>(row) * kIds;
    std::normal_distribution<float> normal(0.0f, row + 1 == num_rows ? 0.1f : 2.5f);
    for (int32_t id = 0; id < kIds; ++id) values[id] = normal(random);
    for (int32_t k = 0; k < 8 && row + 1 < num_rows; ++k)
      values[random() % kIds] += static_cast<float>(5 * row);
  }
  return logits;
}

std::vector<CandidateQuery> Queries(int32_t num_rows) {
  std::vector<CandidateQuery> queries(num_rows);
  for (int32_t i = 0; i < num_rows; ++i) {
    queries[i] = {.temperature = i == 2 ? 0.0f : 0.3f * static_cast<float>(i + 1),
                  .num_ids = kIds - 300 * i,
                  .seed = 0x9876543210u * (i + 1),
                  .position = 40 + i,
                  .wants_near = i % 2 == 1};
  }
  return queries;
}

TEST(RowCandidatesTest, AreThoseOfTheDefinition) {
  TANDEM_NEEDS_DEVICE();
  constexpr int32_t kRows = 6;
  const std::vector<float> logits = RandomRows(kRows, 1);
  const std::vector<CandidateQuery> queries = Queries(kRows);
  const Found found(logits, queries);
  for (int32_t i = 0; i < kRows; ++i) {
    SCOPED_TRACE(i);
    if (queries[i].temperature == 0.0f) {
      EXPECT_EQ(found.row(i).num_contenders, 0);
      continue;
    }
    const auto row = absl::MakeConstSpan(logits).subspan(static_cast<size_t>(i) * kIds, kIds);
    const ReferenceCandidates expected(row, queries[i]);
    EXPECT_NEAR(found.exp_sum(i) / expected.numbers.exp_sum, 1.0, 1e-5);
    if (expected.contenders.empty()) {
      EXPECT_GT(found.row(i).num_contenders, kMaxContenders);
    } else {
      const auto contenders = found.contenders(i);
      for (const IdLogit& c : expected.contenders) EXPECT_EQ(contenders.at(c.id), c.logit);
      EXPECT_LE(contenders.size(), expected.contenders.size() + 8);
    }
    std::map<int32_t, float> near;
    int32_t num_bands = 0;
    while (queries[i].wants_near && num_bands < kNearBands &&
           found.row(i).num_near[num_bands] <= kNearBandIds) {
      near.merge(found.band(i, num_bands++));
    }
    EXPECT_EQ(NearReach(num_bands), expected.numbers.reach);
    std::map<int32_t, float> expected_near;
    for (const IdLogit& c : expected.near) expected_near[c.id] = c.logit;
    EXPECT_EQ(near, expected_near);
  }
}

TEST(RowCandidatesTest, SumsDoNotDependOnTheBatch) {
  TANDEM_NEEDS_DEVICE();
  const std::vector<float> logits = RandomRows(4, 2);
  std::vector<CandidateQuery> queries = Queries(4);
  queries[2].temperature = 1.0f;
  const Found together(logits, queries);
  for (int32_t i = 0; i < 4; ++i) {
    const auto begin = logits.begin() + static_cast<int64_t>(i) * kIds;
    const Found alone({begin, begin + kIds}, {queries[i]});
    EXPECT_EQ(alone.exp_sum(0), together.exp_sum(i));
    EXPECT_EQ(alone.row(0).num_contenders <= kMaxContenders,
              together.row(i).num_contenders <= kMaxContenders);
  }
}

TEST(RowCandidatesTest, ARowThatIsNotFiniteHasNoSum) {
  TANDEM_NEEDS_DEVICE();
  const std::vector<float> good = RandomRows(1, 3);
  for (const float bad : {std::nanf(""), -std::nanf(""), kInfinity, -kInfinity}) {
    for (const int32_t id : {0, 777, kIds - 1}) {
      std::vector<float> logits = good;
      logits[id] = bad;
      const CandidateQuery query = {.temperature = 1.0f, .num_ids = kIds, .wants_near = true};
      EXPECT_TRUE(std::isnan(Found(logits, {query}).exp_sum(0))) << id << " is " << bad;
    }
  }
}

}  // namespace
}  // namespace tandem::cuda
