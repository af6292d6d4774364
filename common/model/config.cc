#include "common/model/config.h"

#include <cmath>
#include <cstring>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"

namespace tandem {
namespace {

// Bounds that no model of this kind comes near; they keep every later product in 64 bits.
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxDim = 1 << 20;
constexpr int64_t kMaxVocab = 1 << 22;
constexpr int64_t kMaxContext = int64_t{1} << 26;

// The integer of `key`, in [low, high]; `fallback` when it is missing and one is given.
absl::StatusOr<int32_t> GetBounded(const GgufFile& file, std::string_view key, int64_t low,
                                   int64_t high, int64_t fallback = -1) {
  absl::StatusOr<int64_t> value = file.GetInt(key);
  if (absl::IsNotFound(value.status()) && fallback >= 0) return static_cast<int32_t>(fallback);
  RETURN_IF_ERROR(value.status());
  if (*value < low || *value > high) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %s is %d, must be in [%d, %d]", file.path(), key, *value, low, high));
  }
  return static_cast<int32_t>(*value);
}

absl::StatusOr<float> GetPositive(const GgufFile& file, std::string_view key, double fallback) {
  absl::StatusOr<double> value = file.GetFloat(key);
  if (absl::IsNotFound(value.status()) && fallback > 0) return static_cast<float>(fallback);
  RETURN_IF_ERROR(value.status());
  if (!std::isfinite(*value) || *value <= 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %s is %g, must be positive", file.path(), key, *value));
  }
  return static_cast<float>(*value);
}

absl::Status CheckHeads(const GgufFile& file, const ModelConfig& config) {
  if (config.num_heads % config.num_kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %d query heads are not a multiple of %d KV heads", file.path(),
                        config.num_heads, config.num_kv_heads));
  }
  if (config.head_dim % 32 != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s: heads are %d wide; Tandem runs multiples of 32", file.path(), config.head_dim));
  }
  if (config.rope_dim % 2 != 0 || config.rope_dim > config.head_dim) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: llama.rope.dimension_count is %d, must be even and at most the head "
                        "width %d",
                        file.path(), config.rope_dim, config.head_dim));
  }
  return absl::OkStatus();
}

// Divisors of the angles, one a pair: how GGUF stores the `llama3` scaling.
absl::Status ApplyRopeFactors(const GgufFile& file, ModelConfig& config) {
  const GgufTensor* factors = file.FindTensor("rope_freqs.weight");
  if (factors == nullptr) return absl::OkStatus();
  const auto num_pairs = static_cast<int64_t>(config.rope_inv_freq.size());
  if (factors->dtype != DType::kF32 || factors->num_elements() != num_pairs) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s: rope_freqs.weight has %d elements of %s, expected %d of F32", file.path(),
        factors->num_elements(), DTypeName(factors->dtype), num_pairs));
  }
  for (int64_t i = 0; i < num_pairs; ++i) {
    float factor;
    std::memcpy(&factor, factors->data.data() + i * sizeof(float), sizeof(float));
    if (!std::isfinite(factor) || factor <= 0) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "%s: rope_freqs.weight[%d] is %g, must be positive", file.path(), i, factor));
    }
    config.rope_inv_freq[i] /= factor;
  }
  return absl::OkStatus();
}

absl::Status ReadRope(const GgufFile& file, ModelConfig& config) {
  ASSIGN_OR_RETURN(config.rope_dim,
                   GetBounded(file, "llama.rope.dimension_count", 2, kMaxDim, config.head_dim));
  RETURN_IF_ERROR(CheckHeads(file, config));
  ASSIGN_OR_RETURN(config.rope_theta, GetPositive(file, "llama.rope.freq_base", 10000.0));
  float factor = 1.0f;
  const absl::StatusOr<std::string_view> type = file.GetString("llama.rope.scaling.type");
  if (type.ok() && *type == "linear") {
    ASSIGN_OR_RETURN(factor, GetPositive(file, "llama.rope.scaling.factor", 1.0));
  } else if (type.ok() && *type != "none" && *type != "llama3") {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": llama.rope.scaling.type is ",
                                                   std::string(*type),
                                                   "; Tandem knows none, linear and llama3"));
  } else if (absl::IsNotFound(type.status())) {
    ASSIGN_OR_RETURN(factor, GetPositive(file, "llama.rope.scale_linear", 1.0));
  }
  for (int32_t i = 0; i < config.rope_dim / 2; ++i) {
    const double exponent = -2.0 * i / config.rope_dim;
    config.rope_inv_freq.push_back(
        static_cast<float>(std::pow(double{config.rope_theta}, exponent) / factor));
  }
  return ApplyRopeFactors(file, config);
}

absl::Status ReadVocabulary(const GgufFile& file, ModelConfig& config) {
  const GgufTensor* embedding = file.FindTensor("token_embd.weight");
  if (embedding == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": no token_embd.weight: the file holds no model"));
  }
  if (embedding->dims.size() != 2 || embedding->dims[1] > kMaxVocab) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": token_embd.weight is not a matrix of vocabulary rows"));
  }
  config.vocab_size = static_cast<int32_t>(embedding->dims[1]);
  const auto tokens = file.GetStrings("tokenizer.ggml.tokens");
  if (tokens.ok() && static_cast<int64_t>(tokens->size()) != config.vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %d tokens, but %d rows of token_embd.weight", file.path(),
                        tokens->size(), config.vocab_size));
  }
  config.tied_head = file.FindTensor("output.weight") == nullptr;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ModelConfigFromGguf(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string_view architecture, file.GetString("general.architecture"));
  if (architecture != "llama") {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path(), ": architecture is ", std::string(architecture), "; Tandem runs llama"));
  }
  ModelConfig config;
  const absl::StatusOr<std::string_view> name = file.GetString("general.name");
  config.name = name.ok() ? std::string(*name) : file.path();
  ASSIGN_OR_RETURN(config.num_layers, GetBounded(file, "llama.block_count", 1, kMaxLayers));
  ASSIGN_OR_RETURN(config.hidden_dim, GetBounded(file, "llama.embedding_length", 32, kMaxDim));
  ASSIGN_OR_RETURN(config.ffn_dim, GetBounded(file, "llama.feed_forward_length", 32, kMaxDim));
  ASSIGN_OR_RETURN(config.num_heads, GetBounded(file, "llama.attention.head_count", 1, 4096));
  ASSIGN_OR_RETURN(config.num_kv_heads, GetBounded(file, "llama.attention.head_count_kv", 1,
                                                   config.num_heads, config.num_heads));
  ASSIGN_OR_RETURN(config.head_dim, GetBounded(file, "llama.attention.key_length", 1, 4096,
                                               config.hidden_dim / config.num_heads));
  ASSIGN_OR_RETURN(const int32_t value_dim,
                   GetBounded(file, "llama.attention.value_length", 1, 4096, config.head_dim));
  if (value_dim != config.head_dim) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: values are %d wide and keys %d; Tandem needs them equal", file.path(),
                        value_dim, config.head_dim));
  }
  ASSIGN_OR_RETURN(config.context_length, GetBounded(file, "llama.context_length", 1, kMaxContext));
  ASSIGN_OR_RETURN(config.norm_epsilon,
                   GetPositive(file, "llama.attention.layer_norm_rms_epsilon", 1e-5));
  RETURN_IF_ERROR(ReadRope(file, config));
  RETURN_IF_ERROR(ReadVocabulary(file, config));
  for (const GgufTensor& tensor : file.tensors()) config.num_parameters += tensor.num_elements();
  return config;
}

}  // namespace tandem
