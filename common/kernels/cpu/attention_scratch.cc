#include "common/kernels/cpu/attention_scratch.h"

#include <algorithm>

#include "common/kernels/cpu/kv_region.h"

namespace tandem::cpu {

AttentionScratch::AttentionScratch(int32_t queries, int32_t head_dim)
    : q(MakeAligned<float>(int64_t{queries} * head_dim)),
      q_codes(MakeAligned<int8_t>(int64_t{queries} * head_dim)),
      q_scales(MakeAligned<float>(int64_t{queries} * (head_dim / kKvBlock))),
      q_biases(MakeAligned<int32_t>(int64_t{queries} * (head_dim / kKvBlock))),
      k(MakeAligned<float>(int64_t{head_dim} * kTilePositions)),
      k_codes(MakeAligned<uint8_t>(int64_t{head_dim} * kTilePositions)),
      k_scales(MakeAligned<float>(int64_t{head_dim / kKvBlock} * kTilePositions)),
      v(MakeAligned<float>(int64_t{head_dim} * kTilePositions)),
      v_codes(MakeAligned<int8_t>(int64_t{head_dim} * kTilePositions)),
      v_scales(MakeAligned<float>(int64_t{head_dim / kKvBlock} * kTilePositions)),
      v_weights(MakeAligned<float>(int64_t{kQueryGroup} * (head_dim / kKvBlock) * kTilePositions)),
      weights(MakeAligned<float>(int64_t{queries} * kTilePositions)),
      split(MakeAligned<float>(queries * StateStride(head_dim))),
      total(MakeAligned<float>(queries * StateStride(head_dim))) {}

AttentionWorkspace::Impl::Impl(int32_t max_rows, int32_t max_positions, int32_t num_heads,
                               int32_t head_dim, int32_t num_threads)
    : plan(max_rows, max_positions, std::max(kMaxQueries, num_heads), num_threads),
      slots(MakeAligned<float>(plan.max_slots() * StateStride(head_dim))),
      counters(std::make_unique<std::atomic<int32_t>[]>(plan.max_counters())) {
  threads.reserve(num_threads);
  for (int32_t t = 0; t < num_threads; ++t) {
    threads.emplace_back(std::max(kMaxQueries, num_heads), head_dim);
  }
}

AttentionWorkspace::AttentionWorkspace(int32_t max_rows, int32_t max_positions, int32_t num_heads,
                                       int32_t head_dim, int32_t num_threads)
    : impl_(std::make_unique<Impl>(max_rows, max_positions, num_heads, head_dim, num_threads)) {}

AttentionWorkspace::~AttentionWorkspace() = default;

}  // namespace tandem::cpu
