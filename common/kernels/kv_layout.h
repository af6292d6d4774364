// The bytes of a KV page. One definition for the CPU and the CUDA kernels.
#pragma once

#include <cstdint>

namespace tandem {

// How K or V elements are stored. k8 and k4: blocks of 32 along head_dim, one f16
// scale each. k4 values are Hadamard-rotated per head first (Q likewise, and the
// output back): rotation spreads outliers, as in QuaRot (Ashkboos et al. 2024).
enum class KvType : int32_t { kF16 = 0, k8 = 1, k4 = 2 };

// The KV geometry of one model in one pool. A page holds `page_positions` consecutive
// positions of one sequence: for each layer and each KV head the K of all positions,
// then the V of all positions.
struct KvLayout {
  int32_t num_layers = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;  // a multiple of 32
  KvType k_type = KvType::k4;
  KvType v_type = KvType::k4;
  int32_t page_positions = 0;  // a multiple of 8

  // Bytes of one head's K (or V) at one position.
  static constexpr int64_t HeadBytes(KvType type, int32_t head_dim) {
    switch (type) {
      case KvType::kF16:
        return int64_t{2} * head_dim;
      case KvType::k8:
        return int64_t{head_dim} / 32 * 34;
      case KvType::k4:
        return int64_t{head_dim} / 32 * 18;
    }
    return 0;
  }
  // Bytes of one position: K and V, all heads, all layers.
  constexpr int64_t position_bytes() const {
    return int64_t{num_layers} * num_kv_heads *
           (HeadBytes(k_type, head_dim) + HeadBytes(v_type, head_dim));
  }
  // Bytes used in a page; the pool's page size is at least this.
  constexpr int64_t page_bytes() const { return position_bytes() * page_positions; }

  // Byte offset in the page of the K region of (layer, head); the region holds
  // page_positions * HeadBytes(k_type). The V region follows it.
  constexpr int64_t KOffset(int32_t layer, int32_t kv_head) const {
    const int64_t per_head =
        (HeadBytes(k_type, head_dim) + HeadBytes(v_type, head_dim)) * page_positions;
    return (int64_t{layer} * num_kv_heads + kv_head) * per_head;
  }
  constexpr int64_t VOffset(int32_t layer, int32_t kv_head) const {
    return KOffset(layer, kv_head) + HeadBytes(k_type, head_dim) * page_positions;
  }
};

}  // namespace tandem
