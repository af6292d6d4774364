#include "common/model/executor_driver.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>

#include "common/base/check.h"

namespace tandem {

ExecutorDriver::ExecutorDriver(std::unique_ptr<Executor> executor, int32_t num_sequences,
                               const MakePages& make_pages)
    : executor_(std::move(executor)) {
  const KvLayout& layout = executor_->kv_layout();
  const int32_t pages_each =
      (executor_->limits().max_positions + layout.page_positions - 1) / layout.page_positions;
  const int32_t num_pages = pages_each * num_sequences;
  const int64_t num_bytes = num_pages * layout.page_bytes();
  if (make_pages) {
    pages_ = make_pages(num_bytes);
  } else {
    pages_.reset(new uint8_t[static_cast<size_t>(num_bytes)]);
    std::memset(pages_.get(), 0xff, static_cast<size_t>(num_bytes));
  }
  TANDEM_CHECK(
      executor_
          ->AttachKv(
              {.base = pages_.get(), .page_bytes = layout.page_bytes(), .num_pages = num_pages})
          .ok());
  std::vector<int32_t> order(static_cast<size_t>(num_pages));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(7));
  for (int32_t i = 0; i < num_sequences; ++i) {
    const auto from = order.begin() + i * pages_each;
    page_tables_.emplace_back(from, from + pages_each);
  }
}

LogitsRows ExecutorDriver::Step(const std::vector<DrivenPiece>& pieces) {
  std::vector<StepSequence> step;
  int32_t num_rows = 0;
  for (const DrivenPiece& piece : pieces) {
    step.push_back({.start_position = piece.start_position,
                    .token_ids = piece.token_ids,
                    .num_logits = piece.num_logits,
                    .page_table = page_tables_[piece.sequence],
                    .candidates = piece.candidates});
    num_rows += piece.num_logits;
  }
  TANDEM_CHECK(executor_->Forward(step).ok());
  LogitsRows rows;
  for (int32_t row = 0; row < num_rows; ++row) {
    const absl::Span<float> logits = executor_->Logits(row);
    rows.emplace_back(logits.begin(), logits.end());
  }
  return rows;
}

LogitsRows ExecutorDriver::RunInSteps(int32_t sequence, absl::Span<const int32_t> token_ids,
                                      const std::vector<int32_t>& sizes) {
  LogitsRows all;
  size_t start = 0;
  for (size_t i = 0; start < token_ids.size(); ++i) {
    const size_t size =
        std::min<size_t>(static_cast<size_t>(sizes[i % sizes.size()]), token_ids.size() - start);
    const LogitsRows rows = Step({{.sequence = sequence,
                                   .start_position = static_cast<int32_t>(start),
                                   .token_ids = token_ids.subspan(start, size),
                                   .num_logits = static_cast<int32_t>(size)}});
    all.insert(all.end(), rows.begin(), rows.end());
    start += size;
  }
  return all;
}

std::unique_ptr<Executor> MakeTestExecutor(const GgufFile& file, KvType kv_type,
                                           int32_t num_threads, int32_t max_positions,
                                           WeightPrecision precision) {
  auto executor = CreateCpuExecutor(
      file,
      {.limits = {.max_step_tokens = 256, .max_logits_rows = 256, .max_positions = max_positions},
       .num_threads = num_threads,
       .k_type = kv_type,
       .v_type = kv_type,
       .page_positions = 16,
       .weight_precision = precision});
  TANDEM_CHECK(executor.ok());
  return *std::move(executor);
}

std::vector<int32_t> RandomTokens(int32_t count, int32_t vocab_size, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint32_t>(vocab_size));
  return ids;
}

double Cosine(absl::Span<const float> actual, absl::Span<const double> expected) {
  TANDEM_CHECK(actual.size() == expected.size());
  double dot = 0.0;
  double actual_squares = 0.0;
  double expected_squares = 0.0;
  for (size_t i = 0; i < actual.size(); ++i) {
    dot += actual[i] * expected[i];
    actual_squares += double{actual[i]} * actual[i];
    expected_squares += expected[i] * expected[i];
  }
  return dot / std::sqrt(actual_squares * expected_squares);
}

}  // namespace tandem
