// What attention's kernels get.
#pragma once

#include "common/kernels/cuda/attention.h"
#include "common/kernels/cuda/divider.h"

namespace tandem::cuda {

// A call, and how to divide by numbers of it.
struct AttentionArgs : AttentionCall {
  Divider heads;  // of a KV head
  Divider pages;  // positions of a page

  explicit AttentionArgs(const AttentionCall& call)
      : AttentionCall(call),
        heads(call.num_heads / call.num_kv_heads),
        pages(call.page_positions) {}
};

}  // namespace tandem::cuda
