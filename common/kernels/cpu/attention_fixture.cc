#include "common/kernels/cpu/attention_fixture.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

namespace tandem::cpu {
namespace {

constexpr int32_t kMaxThreads = 8;

KvLayout LayoutOf(const FixtureShape& shape) {
  return {.num_layers = shape.num_layers,
          .num_kv_heads = shape.num_kv_heads,
          .head_dim = shape.head_dim,
          .k_type = shape.k_type,
          .v_type = shape.v_type,
          .page_positions = shape.page_positions};
}

int32_t MaxPositions(const FixtureShape& shape) {
  int32_t most = 0;
  for (const FixtureSequence& s : shape.sequences) most = std::max(most, s.context + s.num_rows);
  return most;
}

int32_t TotalRows(const FixtureShape& shape) {
  int32_t rows = 0;
  for (const FixtureSequence& s : shape.sequences) rows += s.num_rows;
  return rows;
}

void FillNormal(std::mt19937& random, std::vector<float>& values) {
  std::normal_distribution<float> normal;
  for (float& value : values) value = normal(random);
}

}  // namespace

AttentionFixture::AttentionFixture(const FixtureShape& shape, uint32_t seed, ThreadPool& pool)
    : shape_(shape),
      layout_(LayoutOf(shape)),
      page_bytes_(layout_.page_bytes() + 64),  // pages may be larger than their layout
      num_rows_(TotalRows(shape)),
      workspace_(num_rows_, MaxPositions(shape), shape.num_heads, shape.head_dim, kMaxThreads) {
  std::mt19937 random(seed);
  int64_t num_positions = 0;
  int32_t num_pages = 0;
  for (size_t s = 0; s < shape.sequences.size(); ++s) {
    first_positions_.push_back(num_positions);
    num_positions += Positions(static_cast<int32_t>(s));
    num_pages +=
        (Positions(static_cast<int32_t>(s)) + shape.page_positions - 1) / shape.page_positions;
  }
  std::vector<int32_t> pages(num_pages);
  for (int32_t p = 0; p < num_pages; ++p) pages[p] = p;
  std::shuffle(pages.begin(), pages.end(), random);
  int32_t first_row = 0;
  for (size_t s = 0; s < shape.sequences.size(); ++s) {
    const int32_t count =
        (Positions(static_cast<int32_t>(s)) + shape.page_positions - 1) / shape.page_positions;
    page_tables_.emplace_back(pages.end() - count, pages.end());
    pages.resize(pages.size() - count);
  }
  for (size_t s = 0; s < shape.sequences.size(); ++s) {
    sequences_.push_back({.page_table = page_tables_[s].data(),
                          .start_position = shape.sequences[s].context,
                          .num_rows = shape.sequences[s].num_rows,
                          .first_row = first_row});
    first_row += shape.sequences[s].num_rows;
  }
  pool_bytes_.assign(num_pages * page_bytes_, 0xFF);  // NaN as f16
  k.resize(num_positions * kv_dim());
  v.resize(num_positions * kv_dim());
  q.resize(int64_t{num_rows_} * shape.num_heads * shape.head_dim);
  FillNormal(random, k);
  FillNormal(random, v);
  FillNormal(random, q);
  for (size_t s = 0; s < shape.sequences.size(); ++s) {
    Append(static_cast<int32_t>(s), 0, Positions(static_cast<int32_t>(s)), pool);
  }
}

int32_t AttentionFixture::Positions(int32_t sequence) const {
  return shape_.sequences[sequence].context + shape_.sequences[sequence].num_rows;
}

void AttentionFixture::Append(int32_t sequence, int32_t begin, int32_t end, ThreadPool& pool,
                              bool own) {
  const AttentionSequence rows = {.page_table = page_tables_[sequence].data(),
                                  .start_position = begin,
                                  .num_rows = end - begin,
                                  .first_row = 0};
  const int64_t from = own ? (first_positions_[sequence] + begin) * kv_dim() : 0;
  for (int32_t layer = 0; layer < layout_.num_layers; ++layer) {
    KvAppend({.k = k.data() + from,
              .v = v.data() + from,
              .k_stride = kv_dim(),
              .v_stride = kv_dim(),
              .sequences = &rows,
              .num_sequences = 1,
              .layer = layer,
              .pool = pool_bytes_.data(),
              .pool_page_bytes = page_bytes_,
              .layout = layout_,
              .k_feedback = k_feedback},
             pool);
  }
}

AttentionArgs AttentionFixture::Args(float* out) const {
  const int64_t stride = int64_t{shape_.num_heads} * shape_.head_dim;
  return {.q = q.data(),
          .q_stride = stride,
          .out = out,
          .out_stride = stride,
          .num_heads = shape_.num_heads,
          .scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
          .sequences = sequences_.data(),
          .num_sequences = static_cast<int32_t>(sequences_.size()),
          .layer = 0,
          .pool = pool_bytes_.data(),
          .pool_page_bytes = page_bytes_,
          .layout = layout_};
}

std::vector<float> AttentionFixture::Run(ThreadPool& pool, int32_t layer) {
  std::vector<float> out(q.size());
  AttentionArgs args = Args(out.data());
  args.layer = layer;
  Attention(args, workspace_, pool);
  return out;
}

std::vector<float> AttentionFixture::RunRef(int32_t layer) {
  std::vector<float> out(q.size());
  AttentionArgs args = Args(out.data());
  args.layer = layer;
  AttentionRef(args);
  return out;
}

std::vector<float> AttentionFixture::RunRows(int32_t sequence, int32_t first_row, int32_t num_rows,
                                             ThreadPool& pool) {
  AttentionSequence rows = sequences_[sequence];
  rows.start_position += first_row;
  rows.first_row = 0;
  rows.num_rows = num_rows;
  const int64_t row_floats = int64_t{shape_.num_heads} * shape_.head_dim;
  std::vector<float> out(num_rows * row_floats);
  AttentionArgs args = Args(out.data());
  args.q += (sequences_[sequence].first_row + first_row) * row_floats;
  args.sequences = &rows;
  args.num_sequences = 1;
  Attention(args, workspace_, pool);
  return out;
}

double RelativeError(const std::vector<float>& actual, const std::vector<float>& expected) {
  double error = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = static_cast<double>(actual[i]) - expected[i];
    error += difference * difference;
    norm += static_cast<double>(expected[i]) * expected[i];
  }
  return std::sqrt(error / norm);
}

std::string KvTypeName(KvType type) {
  switch (type) {
    case KvType::kF16:
      return "f16";
    case KvType::k8:
      return "k8";
    case KvType::k4:
      return "k4";
  }
  return "";
}

}  // namespace tandem::cpu
