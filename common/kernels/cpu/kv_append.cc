// KvAppend: rotates, quantizes and writes K and V to their page slots.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "common/kernels/cpu/attention.h"
#include "common/kernels/cpu/kv_region.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/kernels/cpu/kv_append.cc"
#include <hwy/foreach_target.h>  // before highway.h
#include <hwy/highway.h>

#include "common/kernels/cpu/hadamard-inl.h"
#include "common/kernels/cpu/kv_quantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {

HWY_INLINE void StoreScale(uint16_t bits, const KvLayout& layout, KvType type, int32_t block,
                           int32_t slot, uint8_t* region) {
  std::memcpy(region + ScaleOffset(layout, type, block, slot), &bits, sizeof(bits));
}

void StoreK(const float* x, const float* feedback, const KvLayout& layout, int32_t slot,
            uint8_t* region) {
  const int64_t group = GroupPositions(layout);
  uint8_t* out = region + KChunkOffset(layout, slot);
  if (layout.k_type == KvType::kF16) {
    for (int32_t i = 0; i < layout.head_dim; ++i) {
      const uint16_t bits = F16Bits(x[i]);
      std::memcpy(out + i * group * 2, &bits, sizeof(bits));
    }
    return;
  }
  const bool is_k8 = layout.k_type == KvType::k8;
  int32_t codes[kMaxHeadDim];
  uint16_t scales[kMaxHeadDim / kKvBlock];
  for (int32_t block = 0; block < layout.head_dim / kKvBlock; ++block) {
    const int32_t dim = block * kKvBlock;
    scales[block] = is_k8 ? Quantize8(x + dim, codes + dim) : Quantize4(x + dim, codes + dim);
    StoreScale(scales[block], layout, layout.k_type, block, slot, region);
  }
  if (is_k8) {
    for (int32_t i = 0; i < layout.head_dim; i += 4, out += group * 4) {
      for (int32_t b = 0; b < 4; ++b) out[b] = static_cast<uint8_t>(codes[i + b] + kK8Bias);
    }
    return;
  }
  if (feedback != nullptr) Requantize4(x, scales, feedback, layout.head_dim, codes);
  for (int32_t i = 0; i < layout.head_dim; i += 8, out += group * 4) {
    for (int32_t b = 0; b < 4; ++b) {
      out[b] = static_cast<uint8_t>(codes[i + b] | (codes[i + 4 + b] << 4));
    }
  }
}

void StoreV(const float* x, const KvLayout& layout, int32_t slot, uint8_t* region) {
  uint8_t* out = region + CodeBytes(layout.v_type, layout.head_dim) * slot;
  if (layout.v_type == KvType::kF16) {
    for (int32_t i = 0; i < layout.head_dim; ++i) {
      const uint16_t bits = F16Bits(x[i]);
      std::memcpy(out + int64_t{i} * 2, &bits, sizeof(bits));
    }
    return;
  }
  const bool is_k8 = layout.v_type == KvType::k8;
  int32_t codes[kMaxHeadDim];
  for (int32_t block = 0; block < layout.head_dim / kKvBlock; ++block) {
    const int32_t dim = block * kKvBlock;
    const uint16_t scale =
        is_k8 ? Quantize8(x + dim, codes + dim) : Quantize4(x + dim, codes + dim);
    StoreScale(scale, layout, layout.v_type, block, slot, region);
  }
  if (is_k8) {
    for (int32_t i = 0; i < layout.head_dim; ++i) out[i] = static_cast<uint8_t>(codes[i]);
    return;
  }
  for (int32_t dim = 0; dim < layout.head_dim;) {
    const int32_t half = V4ChunkDims(layout.head_dim, dim) / 2;
    for (int32_t i = 0; i < half; ++i) {
      *out++ = static_cast<uint8_t>(codes[dim + i] | (codes[dim + half + i] << 4));
    }
    dim += 2 * half;
  }
}

// Appends K and V of one KV head at one position.
void AppendHead(const KvAppendArgs& args, const AttentionSequence& sequence, int32_t row,
                int32_t kv_head) {
  HWY_ALIGN float x[kMaxHeadDim];
  const KvLayout& layout = args.layout;
  const int32_t position = sequence.start_position + row;
  const int32_t page = sequence.page_table[position / layout.page_positions];
  const int32_t slot = position % layout.page_positions;
  uint8_t* base = args.pool + page * args.pool_page_bytes;
  const size_t bytes = sizeof(float) * static_cast<size_t>(layout.head_dim);
  const int64_t column = int64_t{kv_head} * layout.head_dim;
  const int64_t input_row = int64_t{sequence.first_row} + row;

  std::memcpy(x, args.k + input_row * args.k_stride + column, bytes);
  if (layout.k_type == KvType::k4) RotateHead(x, layout.head_dim);
  const int64_t matrix = int64_t{kv_head} * layout.head_dim * layout.head_dim;
  StoreK(x, args.k_feedback != nullptr ? args.k_feedback + matrix : nullptr, layout, slot,
         base + layout.KOffset(args.layer, kv_head));

  std::memcpy(x, args.v + input_row * args.v_stride + column, bytes);
  if (layout.v_type == KvType::k4) RotateHead(x, layout.head_dim);
  StoreV(x, layout, slot, base + layout.VOffset(args.layer, kv_head));
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem::cpu {
namespace {

HWY_EXPORT(AppendHead);

// Rows of a task. A head takes some microseconds, about what waking a thread costs.
constexpr int32_t kRowsPerTask = 4;

}  // namespace

void KvAppend(const KvAppendArgs& args, ThreadPool& pool) {
  int32_t num_rows = 0;
  for (int32_t s = 0; s < args.num_sequences; ++s) num_rows += args.sequences[s].num_rows;
  const auto append = HWY_DYNAMIC_DISPATCH(AppendHead);
  const auto append_rows = [&](int32_t begin, int32_t end) {
    int32_t first = 0;  // of the sequence, counted over the rows of all
    for (int32_t s = 0; s < args.num_sequences; ++s) {
      const AttentionSequence& sequence = args.sequences[s];
      const int32_t row_end = std::min(end - first, sequence.num_rows);
      for (int32_t row = std::max(begin - first, 0); row < row_end; ++row) {
        for (int32_t head = 0; head < args.layout.num_kv_heads; ++head) {
          append(args, sequence, row, head);
        }
      }
      first += sequence.num_rows;
    }
  };
  const int32_t num_tasks = (num_rows + kRowsPerTask - 1) / kRowsPerTask;
  if (num_tasks <= 1) {
    append_rows(0, num_rows);
    return;
  }
  pool.Run(num_tasks, [&](int32_t task, int32_t) {
    append_rows(task * kRowsPerTask, std::min((task + 1) * kRowsPerTask, num_rows));
  });
}

}  // namespace tandem::cpu
#endif  // HWY_ONCE
