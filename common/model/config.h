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
  // A trimmed draft: row i of the embedding, which is the head, is of id kept_ids[i]; one
  // more row is of all other ids, which the model reads but never writes. Empty: row i is id i.
  std::vector<int32_t> kept_ids;
  int32_t context_length = 0;  // trained positions
  float norm_epsilon = 1e-5f;
  float rope_theta = 10000.0f;
  // Angle per position of each rotated pair [rope_dim / 2], scaling (`llama3` factors,
  // linear) already applied.
  std::vector<float> rope_inv_freq;
  bool tied_head = false;  // the head is the embedding table
  int64_t num_parameters = 0;

  int32_t num_embedding_rows() const {
    return kept_ids.empty() ? vocab_size : static_cast<int32_t>(kept_ids.size()) + 1;
  }
};

// Reads and checks the metadata of a `llama` GGUF. INVALID_ARGUMENT names the key and
// the value that does not fit (zero heads, heads not a multiple of KV heads, odd RoPE
// dimension, another architecture, ...).
absl::StatusOr<ModelConfig> ModelConfigFromGguf(const GgufFile& file);

}  // namespace tandem
