// A pool of pages with random K and V, and the calls on it: for tests and benchmarks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/kernels/cpu/attention.h"

namespace tandem::cpu {

// A sequence of the fixture: `context` positions before this step's rows.
struct FixtureSequence {
  int32_t context = 0;
  int32_t num_rows = 1;
};

struct FixtureShape {
  int32_t num_heads = 9;
  int32_t num_kv_heads = 3;
  int32_t head_dim = 64;
  int32_t num_layers = 1;
  int32_t page_positions = 16;
  KvType k_type = KvType::k4;
  KvType v_type = KvType::k4;
  std::vector<FixtureSequence> sequences;
};

class AttentionFixture {
 public:
  // Appends every position of every sequence. `seed` chooses all values. Bytes never
  // written are 0xFF: NaN as f16.
  AttentionFixture(const FixtureShape& shape, uint32_t seed, ThreadPool& pool);

  // Attends all rows; [rows, num_heads * head_dim].
  std::vector<float> Run(ThreadPool& pool, int32_t layer = 0);
  std::vector<float> RunRef(int32_t layer = 0);

  // Attends only some rows of one sequence.
  std::vector<float> RunRows(int32_t sequence, int32_t first_row, int32_t num_rows,
                             ThreadPool& pool);

  // Appends positions [begin, end) of a sequence again, from their own K and V or from
  // those of other positions.
  void Append(int32_t sequence, int32_t begin, int32_t end, ThreadPool& pool, bool own = true);

  AttentionArgs Args(float* out) const;
  AttentionWorkspace& workspace() { return workspace_; }
  const std::vector<uint8_t>& pool_bytes() const { return pool_bytes_; }
  int32_t num_rows() const { return num_rows_; }
  const KvLayout& layout() const { return layout_; }

  // Values of all positions, in the order of the sequences: [position, kv_dim].
  std::vector<float> k;
  std::vector<float> v;
  std::vector<float> q;  // [rows, num_heads * head_dim]
  const float* k_feedback = nullptr;

 private:
  int32_t Positions(int32_t sequence) const;
  int32_t kv_dim() const { return layout_.num_kv_heads * layout_.head_dim; }

  FixtureShape shape_;
  KvLayout layout_;
  int64_t page_bytes_;
  int32_t num_rows_ = 0;
  std::vector<std::vector<int32_t>> page_tables_;
  std::vector<AttentionSequence> sequences_;
  std::vector<int64_t> first_positions_;  // of each sequence, in k and v
  std::vector<uint8_t> pool_bytes_;
  AttentionWorkspace workspace_;
};

// sqrt of the squared differences over the squares of `expected`.
double RelativeError(const std::vector<float>& actual, const std::vector<float>& expected);

std::string KvTypeName(KvType type);

}  // namespace tandem::cpu
