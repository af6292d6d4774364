// The hyperparameters of a Llama-architecture model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/gguf.h"

namespace tandem {

struct ModelConfig {
  std::string name;  // general.name, or the file's
  int32_t num_layers = 0;
  int32_t hidden_dim = 0;
  int32_t ffn_dim = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t rope_dim = 0;
  int32_t vocab_size = 0;
  int32_t context_length = 0;  // trained positions
  float norm_epsilon = 1e-5f;
  float rope_theta = 10000.0f;
  // Angle per position of each rotated pair [rope_dim / 2], scaling (`llama3` factors,
  // linear) already applied.
  std::vector<float> rope_inv_freq;
  bool tied_head = false;  // the head is the embedding table
  int64_t num_parameters = 0;
};

// Reads and checks the metadata of a `llama` GGUF. INVALID_ARGUMENT names the key and
// the value that does not fit (zero heads, heads not a multiple of KV heads, odd RoPE
// dimension, another architecture, ...).
absl::StatusOr<ModelConfig> ModelConfigFromGguf(const GgufFile& file);

}  // namespace tandem
