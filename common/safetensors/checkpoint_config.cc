#include "common/safetensors/checkpoint_config.h"

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/safetensors/json_reader.h"

namespace tandem::internal {
namespace {

using nlohmann::json;

absl::Status Unsupported(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("config.json: ", what));
}

// Copies a number that must be there.
absl::StatusOr<int64_t> CopyInt(const json& config, const char* key, const char* gguf_key,
                                GgufBuilder& builder) {
  ASSIGN_OR_RETURN(const int64_t value, JsonInt(config, key, 0));
  if (value < 1) return Unsupported(absl::StrCat("no ", key));
  builder.AddInt(gguf_key, value);
  return value;
}

absl::Status CheckArchitecture(const json& config) {
  ASSIGN_OR_RETURN(const std::string type, JsonString(config, "model_type", ""));
  if (type != "llama") return Unsupported("model_type is '" + type + "'; Tandem runs llama");
  ASSIGN_OR_RETURN(const std::string activation, JsonString(config, "hidden_act", "silu"));
  if (activation != "silu") return Unsupported("hidden_act is '" + activation + "', not silu");
  for (const char* bias : {"attention_bias", "mlp_bias"}) {
    ASSIGN_OR_RETURN(const bool has_bias, JsonBool(config, bias, false));
    if (has_bias) return Unsupported(absl::StrCat(bias, " is true; Tandem runs without biases"));
  }
  return absl::OkStatus();
}

// rope_scaling, or rope_parameters as newer versions of transformers write it.
absl::Status AddRope(const json& config, GgufBuilder& builder) {
  json rope = JsonObject(config, "rope_parameters");
  if (rope.empty()) rope = JsonObject(config, "rope_scaling");
  ASSIGN_OR_RETURN(const double plain_theta, JsonFloat(config, "rope_theta", 10000.0));
  ASSIGN_OR_RETURN(const double theta, JsonFloat(rope, "rope_theta", plain_theta));
  builder.AddFloat("llama.rope.freq_base", theta);
  ASSIGN_OR_RETURN(const std::string old_type, JsonString(rope, "type", "default"));
  ASSIGN_OR_RETURN(const std::string type, JsonString(rope, "rope_type", old_type));
  if (type == "default") return absl::OkStatus();
  if (type != "llama3" && type != "linear") {
    return Unsupported("RoPE scaling '" + type + "'; Tandem knows llama3 and linear");
  }
  builder.AddString("llama.rope.scaling.type", type);
  ASSIGN_OR_RETURN(const double factor, JsonFloat(rope, "factor", 1.0));
  builder.AddFloat("llama.rope.scaling.factor", factor);
  if (type == "linear") return absl::OkStatus();
  ASSIGN_OR_RETURN(const double low, JsonFloat(rope, "low_freq_factor", 1.0));
  ASSIGN_OR_RETURN(const double high, JsonFloat(rope, "high_freq_factor", 4.0));
  ASSIGN_OR_RETURN(const int64_t original, JsonInt(rope, "original_max_position_embeddings", 8192));
  builder.AddFloat("llama.rope.scaling.low_freq_factor", low);
  builder.AddFloat("llama.rope.scaling.high_freq_factor", high);
  builder.AddInt("llama.rope.scaling.original_context_length", original);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CheckpointShape> AddConfig(const json& config, const std::string& name,
                                          GgufBuilder& builder) {
  RETURN_IF_ERROR(CheckArchitecture(config));
  builder.AddString("general.architecture", "llama");
  builder.AddString("general.name", name);
  CheckpointShape shape;
  ASSIGN_OR_RETURN(shape.num_layers,
                   CopyInt(config, "num_hidden_layers", "llama.block_count", builder));
  ASSIGN_OR_RETURN(shape.num_heads,
                   CopyInt(config, "num_attention_heads", "llama.attention.head_count", builder));
  ASSIGN_OR_RETURN(shape.num_kv_heads, JsonInt(config, "num_key_value_heads", shape.num_heads));
  builder.AddInt("llama.attention.head_count_kv", shape.num_kv_heads);
  ASSIGN_OR_RETURN(const int64_t hidden,
                   CopyInt(config, "hidden_size", "llama.embedding_length", builder));
  RETURN_IF_ERROR(
      CopyInt(config, "intermediate_size", "llama.feed_forward_length", builder).status());
  RETURN_IF_ERROR(
      CopyInt(config, "max_position_embeddings", "llama.context_length", builder).status());
  RETURN_IF_ERROR(CopyInt(config, "vocab_size", "llama.vocab_size", builder).status());
  ASSIGN_OR_RETURN(const int64_t head_dim, JsonInt(config, "head_dim", hidden / shape.num_heads));
  if (shape.num_kv_heads < 1 || shape.num_heads > 65536 || shape.num_layers > 65536 ||
      head_dim < 2 || head_dim % 2 != 0) {
    return Unsupported("heads that cannot be");
  }
  for (const char* key : {"llama.attention.key_length", "llama.attention.value_length",
                          "llama.rope.dimension_count"}) {
    builder.AddInt(key, head_dim);
  }
  ASSIGN_OR_RETURN(const double epsilon, JsonFloat(config, "rms_norm_eps", 1e-6));
  builder.AddFloat("llama.attention.layer_norm_rms_epsilon", epsilon);
  RETURN_IF_ERROR(AddRope(config, builder));
  ASSIGN_OR_RETURN(shape.tied_head, JsonBool(config, "tie_word_embeddings", false));
  return shape;
}

}  // namespace tandem::internal
