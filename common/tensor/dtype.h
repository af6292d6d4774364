// Element types of stored tensors, and the bytes they take.
#pragma once

#include <cstdint>

namespace tandem {

// The storage types that Tandem reads. Values are GGUF's (ggml_type).
enum class DType : int32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kBF16 = 30,
  // bitsandbytes' NF4 (Dettmers et al. 2023), never in a GGUF file: blocks of 64 along a
  // row, each the f32 absolute maximum and 32 bytes of codes, the earlier of two weights in
  // the high half.
  kNF4 = 1000,
};

// How a type packs elements: `elements` consecutive ones take `bytes`.
struct DTypeBlock {
  int32_t elements = 0;
  int32_t bytes = 0;
};

// The block of `type`; {0, 0} for a value that is none of the above.
DTypeBlock BlockOf(DType type);

// "Q4_1" and so on; "?" for a value that is none of the above.
const char* DTypeName(DType type);

}  // namespace tandem
