// Attention: runs the items of a plan.
#include "common/kernels/cpu/attention.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/kernels/cpu/attention_plan.h"
#include "common/kernels/cpu/attention_scratch.h"
#include "common/kernels/cpu/attention_source.h"
#include "common/kernels/cpu/kv_region.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/kernels/cpu/attention.cc"
#include <hwy/foreach_target.h>  // before highway.h
#include <hwy/highway.h>

#include "common/kernels/cpu/attention_scores-inl.h"
#include "common/kernels/cpu/attention_values-inl.h"
#include "common/kernels/cpu/hadamard-inl.h"
#include "common/kernels/cpu/kv_quantize-inl.h"
#include "common/kernels/cpu/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {

// An item's unit and the numbers derived from it.
struct UnitView {
  const AttentionUnit* unit = nullptr;
  const AttentionSequence* sequence = nullptr;
  KvSource source;
  int32_t kv_head = 0;
  int32_t heads = 0;           // query heads of a KV head
  int32_t queries = 0;         // unit->num_rows * heads; query = row * heads + head
  int32_t first_position = 0;  // of the unit's first row
  int32_t end_position = 0;    // one past the last row's

  // Queries before this one end before `position`: their rows do not attend it.
  int32_t FirstQueryAt(int32_t position) const {
    return std::max(0, position - first_position) * heads;
  }
  int32_t PositionOf(int32_t query) const { return first_position + query / heads; }
};

// Quantizes a block of a query to signed bytes; the scale of one that is not finite is NaN.
HWY_INLINE void QuantizeQueryBlock(const float* HWY_RESTRICT q, KvType k_type,
                                   int8_t* HWY_RESTRICT codes, float* scale, int32_t* bias) {
  int32_t wide[kKvBlock];
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<int8_t, decltype(d)> d8;
  const float largest = AbsMax(q);
  *scale = largest * (1.0f / 127);
  *bias = 0;
  if (std::isnan(largest)) {
    std::fill(codes, codes + kKvBlock, 0);
    return;
  }
  const auto inverse = hn::Set(d, largest > 0.0f ? 127.0f / largest : 0.0f);
  int32_t sum = 0;
  for (size_t i = 0; i < kKvBlock; i += hn::Lanes(d)) {
    const auto code = hn::NearestInt(hn::Mul(hn::Load(d, q + i), inverse));
    hn::StoreU(code, di, wide + i);
    hn::StoreU(hn::DemoteTo(d8, code), d8, codes + i);
  }
  for (const int32_t code : wide) sum += code;
  *bias = -sum * (k_type == KvType::k8 ? kK8Bias : kK4Bias);
}

// Rotates, scales and quantizes the queries of a unit as its K asks for.
void PrepareQueries(const AttentionArgs& args, const UnitView& view, AttentionScratch& scratch) {
  const hn::CappedTag<float, 16> d;
  constexpr float kLog2E = 1.44269504088896341f;
  const int32_t head_dim = args.layout.head_dim;
  const int32_t num_blocks = head_dim / kKvBlock;
  const KvType k_type = args.layout.k_type;
  for (int32_t query = 0; query < view.queries; ++query) {
    const int64_t row =
        int64_t{view.sequence->first_row} + view.unit->first_row + query / view.heads;
    const int64_t head = int64_t{view.kv_head} * view.heads + query % view.heads;
    float* q = scratch.q.get() + int64_t{query} * head_dim;
    std::memcpy(q, args.q + row * args.q_stride + head * head_dim, sizeof(float) * head_dim);
    if (k_type == KvType::k4) RotateHead(q, head_dim);
    for (int32_t i = 0; i < head_dim; i += static_cast<int32_t>(hn::Lanes(d))) {
      hn::Store(hn::Mul(hn::Load(d, q + i), hn::Set(d, args.scale * kLog2E)), d, q + i);
    }
    if (k_type == KvType::kF16) continue;
    for (int32_t b = 0; b < num_blocks; ++b) {
      const int32_t block = query * num_blocks + b;
      QuantizeQueryBlock(q + b * kKvBlock, k_type, scratch.q_codes.get() + block * kKvBlock,
                         &scratch.q_scales[block], &scratch.q_biases[block]);
    }
  }
}

// Handles `kQueries` queries of a tile once it is unpacked.
template <int32_t kQueries>
void AttendQueries(const UnitView& view, int32_t query, int32_t start, int32_t count,
                   bool is_v_expanded, AttentionScratch& scratch) {
  static_assert(kQueries <= kQueryGroup);
  const hn::CappedTag<float, 16> d;
  const KvLayout& layout = *view.source.layout;
  Scores<kQueries>(layout.k_type, query, count, layout.head_dim, scratch);
  const int32_t padded_count = static_cast<int32_t>(hwy::RoundUpTo(count, hn::Lanes(d)));
  float factors[kQueries];
  for (int32_t j = 0; j < kQueries; ++j) {
    const int32_t visible = std::min(count, view.PositionOf(query + j) - start + 1);
    factors[j] =
        SoftmaxTile(visible, padded_count, scratch.weights.get() + (query + j) * kTilePositions,
                    scratch.split.get() + (query + j) * StateStride(layout.head_dim));
  }
  AddTile<kQueries>(layout.v_type, query, count, layout.head_dim, is_v_expanded, factors, scratch);
}

// To the second level: on Zen 4 random reads of 2 to 4 KiB then come at 14 to 20 GB/s
// instead of 9, which is also what prefetching to the first level gives.
HWY_INLINE void PrefetchToL2(const uint8_t* line) { __builtin_prefetch(line, 0, 2); }

// Asks for the codes and scales of `count` positions of a region.
void PrefetchRegion(const KvLayout& layout, KvType type, const uint8_t* region, int32_t slot,
                    int32_t count) {
  constexpr int64_t kLine = 64;
  const int64_t code_bytes = CodeBytes(type, layout.head_dim);
  const uint8_t* codes = region + slot * code_bytes;
  for (int64_t i = 0; i < count * code_bytes; i += kLine) PrefetchToL2(codes + i);
  if (type == KvType::kF16) return;
  for (int32_t b = 0; b < layout.head_dim / kKvBlock; ++b) {
    const uint8_t* scales = region + ScaleOffset(layout, type, b, slot);
    for (int64_t i = 0; i < int64_t{count} * 2; i += kLine) PrefetchToL2(scales + i);
  }
}

// Asks for the K and V of the tile at `start`, up to `end`. Pages lie anywhere and each
// holds a few kilobytes of a head: too little for the processor to see a pattern.
void PrefetchTile(const KvSource& source, int32_t start, int32_t end) {
  const KvLayout& layout = *source.layout;
  end = std::min(end, start + kTilePositions);
  while (start < end) {
    const KvSlot slot = source.Locate(start);
    const int32_t run = std::min(end - start, layout.page_positions - slot.index);
    PrefetchRegion(layout, layout.k_type, slot.page + source.k_offset, slot.index, run);
    PrefetchRegion(layout, layout.v_type, slot.page + source.v_offset, slot.index, run);
    start += run;
  }
}

// Attends the `count` positions of a tile that is unpacked, for the queries that reach it.
void AttendTile(const UnitView& view, int32_t start, int32_t count, AttentionScratch& scratch) {
  // Expanding a V tile costs as much as converting its codes for two groups of queries.
  constexpr int32_t kExpandAbove = 2 * kQueryGroup;
  const KvLayout& layout = *view.source.layout;
  int32_t query = view.FirstQueryAt(start);
  const bool is_f16 = layout.v_type == KvType::kF16;
  const bool is_expanded = is_f16 || view.queries - query > kExpandAbove;
  if (is_expanded && !is_f16) ExpandVTile(count, layout.head_dim, scratch);
  // The queries of a group add all positions, those they do not attend with weight 0. But
  // 0 x NaN is NaN: with such a value each query goes alone, up to its own position.
  if (view.PositionOf(query) < start + count - 1 && !IsFiniteVTile(layout, count, scratch)) {
    for (; query < view.queries; ++query) {
      const int32_t visible = std::min(count, view.PositionOf(query) - start + 1);
      AttendQueries<1>(view, query, start, visible, is_expanded, scratch);
    }
    return;
  }
  for (; query + 4 <= view.queries; query += 4) {
    AttendQueries<4>(view, query, start, count, is_expanded, scratch);
  }
  switch (view.queries - query) {
    case 3:
      AttendQueries<3>(view, query, start, count, is_expanded, scratch);
      break;
    case 2:
      AttendQueries<2>(view, query, start, count, is_expanded, scratch);
      break;
    case 1:
      AttendQueries<1>(view, query, start, count, is_expanded, scratch);
      break;
  }
}

// Attends positions [start, end) of one split, for the queries that reach it.
void AttendSplit(const UnitView& view, int32_t start, int32_t end, AttentionScratch& scratch) {
  const KvLayout& layout = *view.source.layout;
  const int64_t stride = StateStride(layout.head_dim);
  for (int32_t query = view.FirstQueryAt(start); query < view.queries; ++query) {
    float* state = scratch.split.get() + query * stride;
    std::fill(state, state + stride, 0.0f);
    state[kStateMax] = kNoScore;
  }
  for (; start < end; start += kTilePositions) {
    const int32_t count = std::min(end - start, kTilePositions);
    PrefetchTile(view.source, start + 2 * kTilePositions, view.end_position);
    UnpackKTile(view.source, start, count, scratch);
    UnpackVTile(view.source, start, count, scratch);
    AttendTile(view, start, count, scratch);
  }
}

// Adds the states of a split to the totals of the queries that reach it.
void CombineSplit(const UnitView& view, int32_t split, const float* states, float* totals) {
  const int32_t head_dim = view.source.layout->head_dim;
  const int64_t stride = StateStride(head_dim);
  for (int32_t query = view.FirstQueryAt(split * kSplitPositions); query < view.queries; ++query) {
    if (split == 0) {
      std::memcpy(totals + query * stride, states + query * stride, stride * sizeof(float));
    } else {
      CombineStates(states + query * stride, head_dim, totals + query * stride);
    }
  }
}

// Divides by the sums, rotates back and writes the rows of a unit.
void WriteRows(const AttentionArgs& args, const UnitView& view, float* totals) {
  const hn::CappedTag<float, 16> d;
  const int32_t head_dim = args.layout.head_dim;
  for (int32_t query = 0; query < view.queries; ++query) {
    float* state = totals + query * StateStride(head_dim);
    float* sums = state + kStateSums;
    const auto inverse = hn::Set(d, 1.0f / state[kStateSum]);
    for (int32_t i = 0; i < head_dim; i += static_cast<int32_t>(hn::Lanes(d))) {
      hn::Store(hn::Mul(hn::Load(d, sums + i), inverse), d, sums + i);
    }
    if (args.layout.v_type == KvType::k4) RotateHead(sums, head_dim);
    const int64_t row =
        int64_t{view.sequence->first_row} + view.unit->first_row + query / view.heads;
    const int64_t head = int64_t{view.kv_head} * view.heads + query % view.heads;
    std::memcpy(args.out + row * args.out_stride + head * head_dim, sums, sizeof(float) * head_dim);
  }
}

// Runs one item. Of the items of a unit and KV head, the last to end combines the
// splits of all: in ascending order, whichever thread it is.
void RunItem(const AttentionArgs& args, AttentionWorkspace::Impl& impl, const AttentionItem& item,
             AttentionScratch& scratch) {
  const AttentionUnit& unit = impl.plan.unit(item.unit);
  const AttentionSequence& sequence = args.sequences[unit.sequence];
  const int32_t heads = args.num_heads / args.layout.num_kv_heads;
  const int32_t first_position = sequence.start_position + unit.first_row;
  const UnitView view = {.unit = &unit,
                         .sequence = &sequence,
                         .source = KvSource::Of(args, sequence, item.kv_head),
                         .kv_head = item.kv_head,
                         .heads = heads,
                         .queries = unit.num_rows * heads,
                         .first_position = first_position,
                         .end_position = first_position + unit.num_rows};
  const int64_t split_stride = view.queries * StateStride(args.layout.head_dim);
  float* slots = impl.slots.get() + unit.first_slot * StateStride(args.layout.head_dim) +
                 int64_t{item.kv_head} * unit.num_splits * split_stride;
  const bool is_whole = unit.items_per_head == 1;

  PrepareQueries(args, view, scratch);
  for (int32_t split = item.split_begin; split < item.split_end; ++split) {
    const int32_t start = split * kSplitPositions;
    AttendSplit(view, start, std::min(start + kSplitPositions, view.end_position), scratch);
    if (is_whole) {
      CombineSplit(view, split, scratch.split.get(), scratch.total.get());
    } else {
      std::memcpy(slots + split * split_stride, scratch.split.get(), split_stride * sizeof(float));
    }
  }
  if (!is_whole) {
    std::atomic<int32_t>& left = impl.counters[unit.first_counter + item.kv_head];
    if (left.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
    for (int32_t split = 0; split < unit.num_splits; ++split) {
      CombineSplit(view, split, slots + split * split_stride, scratch.total.get());
    }
  }
  WriteRows(args, view, scratch.total.get());
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem::cpu {
namespace {

HWY_EXPORT(RunItem);

}  // namespace

void Attention(const AttentionArgs& args, AttentionWorkspace& workspace, ThreadPool& pool) {
  AttentionWorkspace::Impl& impl = workspace.impl();
  assert(args.num_heads % args.layout.num_kv_heads == 0);
  assert(pool.num_threads() <= static_cast<int32_t>(impl.threads.size()));
  AttentionPlan& plan = impl.plan;
  plan.Build(args, args.num_heads / args.layout.num_kv_heads, pool.num_threads());
  for (const AttentionUnit& unit : plan.units()) {
    if (unit.items_per_head == 1) continue;
    for (int32_t head = 0; head < args.layout.num_kv_heads; ++head) {
      impl.counters[unit.first_counter + head].store(unit.items_per_head,
                                                     std::memory_order_relaxed);
    }
  }
  const auto run_item = HWY_DYNAMIC_DISPATCH(RunItem);
  const auto task = [&](int32_t index, int32_t thread) {
    run_item(args, impl, plan.item(index), impl.threads[thread]);
  };
  if (plan.num_items() == 1) {
    task(0, 0);
  } else {
    pool.Run(plan.num_items(), task);
  }
}

}  // namespace tandem::cpu
#endif  // HWY_ONCE
