// config.json and tokenizer.json as GGUF metadata. Private to safetensors/.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/gguf/gguf_builder.h"
#include "nlohmann/json.hpp"

namespace tandem::internal {

// What placing the tensors needs.
struct CheckpointShape {
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  bool tied_head = false;
};

// Adds general.* and llama.* to `builder`. INVALID_ARGUMENT for an architecture, activation,
// bias or RoPE scaling that Tandem does not run.
absl::StatusOr<CheckpointShape> AddConfig(const nlohmann::json& config, const std::string& name,
                                          GgufBuilder& builder);

// Adds tokenizer.ggml.* and the chat template of `folder`. Without a tokenizer.json nothing:
// the model runs, but has no vocabulary. INVALID_ARGUMENT for a kind that Tandem does not know.
absl::Status AddTokenizer(const std::string& folder, const nlohmann::json& config,
                          GgufBuilder& builder);

}  // namespace tandem::internal
