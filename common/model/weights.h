// The weights of a Llama-architecture model, packed for the CPU.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/gguf.h"
#include "common/kernels/cpu/packed_matrix.h"
#include "common/kernels/cpu/thread_pool.h"
#include "common/model/config.h"

namespace tandem {

// What becomes of one tensor of the file.
struct TensorPlan {
  std::string name;
  DType stored = DType::kF32;
  int64_t num_rows = 0;  // outputs; 1 for a vector
  int64_t num_cols = 0;
  cpu::PackedFormat packed = cpu::PackedFormat::kF32;
  bool lossless = true;
  int64_t stored_bytes = 0;
  int64_t packed_bytes = 0;
};

// "4-bit affine" and so on, for people.
const char* PackedFormatName(cpu::PackedFormat format);

// kFloat unpacks all matrices to F32: for comparisons, as exact as can be, slow and large.
enum class WeightPrecision { kPacked, kFloat };

// What LoadWeights would pack, in its order, without reading a weight. INVALID_ARGUMENT
// names the tensor that is missing, has another shape than the config says, or a type
// that does not fit its width.
absl::StatusOr<std::vector<TensorPlan>> PlanWeights(const GgufFile& file,
                                                    const ModelConfig& config);

struct LayerWeights {
  std::vector<float> attention_norm;   // [hidden]
  cpu::PackedMatrix q;                 // (num_heads * head_dim, hidden)
  cpu::PackedMatrix k;                 // (num_kv_heads * head_dim, hidden)
  cpu::PackedMatrix v;                 // (num_kv_heads * head_dim, hidden)
  cpu::PackedMatrix attention_output;  // (hidden, num_heads * head_dim)
  std::vector<float> ffn_norm;         // [hidden]
  cpu::PackedMatrix gate;              // (ffn, hidden)
  cpu::PackedMatrix up;                // (ffn, hidden)
  cpu::PackedMatrix down;              // (hidden, ffn)
};

struct LlamaWeights {
  cpu::PackedMatrix embedding;      // (vocab, hidden)
  cpu::PackedMatrix separate_head;  // (vocab, hidden); empty when tied
  std::vector<float> output_norm;   // [hidden]
  std::vector<LayerWeights> layers;
  int64_t num_bytes = 0;

  const cpu::PackedMatrix& head() const {
    return separate_head.num_rows > 0 ? separate_head : embedding;
  }
};

// Packs all weights, tensors in parallel. The pages of the file are given back to the
// system as they are done with, so that memory holds the weights about once. `progress`
// is called on the caller's thread with the bytes of the file done so far. Errors as
// PlanWeights, and RESOURCE_EXHAUSTED when memory runs out.
absl::StatusOr<LlamaWeights> LoadWeights(const GgufFile& file, const ModelConfig& config,
                                         cpu::ThreadPool& pool,
                                         const std::function<void(int64_t, int64_t)>& progress,
                                         WeightPrecision precision = WeightPrecision::kPacked);

}  // namespace tandem
