// Memory of the attention kernel: what one thread needs for an item, and what the
// items of a step share.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "common/kernels/cpu/attention_plan.h"

namespace tandem::cpu {

// A query's softmax state, in floats: the largest score so far (in base-2 logarithms),
// the sum of the weights relative to it, and from kStateSums on head_dim weighted sums.
inline constexpr int32_t kStateMax = 0;
inline constexpr int32_t kStateSum = 1;
inline constexpr int32_t kStateSums = 16;  // 64 bytes: the sums stay aligned

constexpr int64_t StateStride(int32_t head_dim) { return kStateSums + head_dim; }

inline constexpr std::align_val_t kVectorAlignment{64};

struct AlignedDelete {
  void operator()(void* pointer) const { operator delete(pointer, kVectorAlignment); }
};

// Memory for `count` numbers at a 64-byte boundary, not initialized: everything is
// written before it is read.
template <class T>
using AlignedArray = std::unique_ptr<T[], AlignedDelete>;
template <class T>
AlignedArray<T> MakeAligned(int64_t count) {
  const size_t bytes = static_cast<size_t>(count) * sizeof(T);
  return AlignedArray<T>(static_cast<T*>(operator new(bytes, kVectorAlignment)));
}

// Queries that are handled together once a tile is unpacked.
inline constexpr int32_t kQueryGroup = 4;

// One thread's. `queries` is the most queries of a unit.
struct AttentionScratch {
  AttentionScratch(int32_t queries, int32_t head_dim);

  AlignedArray<float> q;           // [query, head_dim], rotated and scaled
  AlignedArray<int8_t> q_codes;    // [query, head_dim]
  AlignedArray<float> q_scales;    // [query, head_dim / 32]
  AlignedArray<int32_t> q_biases;  // [query, head_dim / 32]: minus K bias * sum of codes
  AlignedArray<float> k;           // f16: [head_dim][kTilePositions]
  AlignedArray<uint8_t> k_codes;   // k8, k4: [head_dim / 4][kTilePositions][4], biased
  AlignedArray<float> k_scales;    // [head_dim / 32][kTilePositions]
  AlignedArray<float> v;           // [kTilePositions][head_dim]: f16, or expanded codes
  AlignedArray<int8_t> v_codes;    // k8, k4: [kTilePositions][head_dim]
  AlignedArray<float> v_scales;    // [head_dim / 32][kTilePositions]
  AlignedArray<float> v_weights;   // [kQueryGroup][head_dim / 32][kTilePositions]
  AlignedArray<float> weights;     // [query][kTilePositions]: scores, then weights
  AlignedArray<float> split;       // [query, StateStride]: state within a split
  AlignedArray<float> total;       // [query, StateStride]: splits combined so far
};

struct AttentionWorkspace::Impl {
  Impl(int32_t max_rows, int32_t max_positions, int32_t num_heads, int32_t head_dim,
       int32_t num_threads);

  AttentionPlan plan;
  std::vector<AttentionScratch> threads;
  AlignedArray<float> slots;                         // [plan.max_slots(), StateStride]
  std::unique_ptr<std::atomic<int32_t>[]> counters;  // items left, [plan.max_counters()]
};

}  // namespace tandem::cpu
