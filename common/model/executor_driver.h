// Runs sequences over an executor with a KV pool of its own, for tests.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "common/gguf/gguf.h"
#include "common/model/cpu_executor.h"

namespace tandem {

// Some tokens of one sequence in a step.
struct DrivenPiece {
  int32_t sequence = 0;
  int32_t start_position = 0;
  absl::Span<const int32_t> token_ids;
  int32_t num_logits = 0;
  CandidateQuery candidates;
};

using LogitsRows = std::vector<std::vector<float>>;

class ExecutorDriver {
 public:
  // Memory for pages of the given bytes, where the executor wants them, all bytes 0xFF.
  using MakePages = std::function<std::shared_ptr<uint8_t[]>(int64_t num_bytes)>;

  // Pages of the sequences are interleaved and in no order. Without `make_pages` they are in
  // host memory. Requires success.
  ExecutorDriver(std::unique_ptr<Executor> executor, int32_t num_sequences,
                 const MakePages& make_pages = nullptr);

  // One Forward; rows in its order. Requires success.
  LogitsRows Step(const std::vector<DrivenPiece>& pieces);

  // Runs a whole text in steps of `sizes`, repeated as often as needed; all rows.
  LogitsRows RunInSteps(int32_t sequence, absl::Span<const int32_t> token_ids,
                        const std::vector<int32_t>& sizes);

  Executor& executor() { return *executor_; }
  absl::Span<const int32_t> page_table(int32_t sequence) const { return page_tables_[sequence]; }

 private:
  std::unique_ptr<Executor> executor_;
  std::shared_ptr<uint8_t[]> pages_;
  std::vector<std::vector<int32_t>> page_tables_;
};

// An executor of `file` with limits for tests. Requires success.
std::unique_ptr<Executor> MakeTestExecutor(const GgufFile& file, KvType kv_type,
                                           int32_t num_threads = 2, int32_t max_positions = 320,
                                           WeightPrecision precision = WeightPrecision::kPacked);

// `count` ids in [0, vocab_size).
std::vector<int32_t> RandomTokens(int32_t count, int32_t vocab_size, uint32_t seed);

// Cosine of two vectors.
double Cosine(absl::Span<const float> actual, absl::Span<const double> expected);

}  // namespace tandem
