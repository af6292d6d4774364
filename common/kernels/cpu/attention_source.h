// Where attention finds the K and V of one sequence, layer and KV head.
#pragma once

#include <cstdint>

#include "common/kernels/cpu/attention.h"

namespace tandem::cpu {

struct KvSlot {
  const uint8_t* page = nullptr;
  int32_t index = 0;  // of the position in its page
};

struct KvSource {
  const KvLayout* layout = nullptr;
  const int32_t* page_table = nullptr;
  const uint8_t* pool = nullptr;
  int64_t pool_page_bytes = 0;
  int64_t k_offset = 0;  // of the region in a page
  int64_t v_offset = 0;

  static KvSource Of(const AttentionArgs& args, const AttentionSequence& sequence,
                     int32_t kv_head) {
    return {.layout = &args.layout,
            .page_table = sequence.page_table,
            .pool = args.pool,
            .pool_page_bytes = args.pool_page_bytes,
            .k_offset = args.layout.KOffset(args.layer, kv_head),
            .v_offset = args.layout.VOffset(args.layer, kv_head)};
  }

  KvSlot Locate(int32_t position) const {
    const int32_t page = page_table[position / layout->page_positions];
    return {.page = pool + page * pool_page_bytes, .index = position % layout->page_positions};
  }
};

}  // namespace tandem::cpu
