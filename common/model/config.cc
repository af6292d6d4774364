#include "common/model/config.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <string_view>

#include "absl/status/status.h"
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

constexpr size_t kMaxNameBytes = 200;

constexpr char kKeptIdsKey[] = "tandem.draft.kept_ids";

// A key that must be there is the file's fault when it is not.
absl::Status MissingIsInvalid(const absl::Status& status) {
  return absl::IsNotFound(status) ? absl::InvalidArgumentError(status.message()) : status;
}

// The integer of `key`, in [low, high]; `fallback` when it is missing and one is given.
absl::StatusOr<int32_t> GetBounded(const GgufFile& file, std::string_view key, int64_t low,
                                   int64_t high, int64_t fallback = -1) {
  const absl::StatusOr<int64_t> value = file.GetInt(key);
  if (absl::IsNotFound(value.status()) && fallback >= 0) return static_cast<int32_t>(fallback);
  RETURN_IF_ERROR(MissingIsInvalid(value.status()));
  if (*value < low || *value > high) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %s is %d, must be in [%d, %d]", file.path(), key, *value, low, high));
  }
  return static_cast<int32_t>(*value);
}

// The number of `key`, positive and finite also as a float; `fallback` when it is missing
// and one is given.
absl::StatusOr<float> GetPositive(const GgufFile& file, std::string_view key,
                                  double fallback = -1.0) {
  const absl::StatusOr<double> value = file.GetFloat(key);
  if (absl::IsNotFound(value.status()) && fallback > 0) return static_cast<float>(fallback);
  RETURN_IF_ERROR(MissingIsInvalid(value.status()));
  const auto number = static_cast<float>(*value);
  if (!std::isfinite(number) || number <= 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %s is %g, must be positive", file.path(), key, *value));
  }
  return number;
}

// The string of `key`; `fallback` when it is missing.
absl::StatusOr<std::string_view> GetString(const GgufFile& file, std::string_view key,
                                           std::string_view fallback) {
  const absl::StatusOr<std::string_view> value = file.GetString(key);
  if (absl::IsNotFound(value.status())) return fallback;
  return value;
}

// A name that logs, metrics and protos can carry: printable ASCII of bounded length.
std::string CleanName(std::string_view name) {
  std::string clean(name.substr(0, kMaxNameBytes));
  for (char& c : clean) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return clean;
}

absl::Status CheckHeads(const GgufFile& file, const ModelConfig& config) {
  if (config.num_heads % config.num_kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %d query heads are not a multiple of %d KV heads", file.path(),
                        config.num_heads, config.num_kv_heads));
  }
  if (config.head_dim < 32 || config.head_dim % 32 != 0) {
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

// The `llama3` scaling from its four numbers, for a file that has no table of factors.
// Slow pairs turn slower by `factor`, fast ones stay, those between are blended.
// Source: Llama 3.1's `rope_scaling` (transformers, modeling_rope_utils.py).
absl::Status ApplyLlama3Scaling(const GgufFile& file, ModelConfig& config) {
  const std::string prefix = "llama.rope.scaling.";
  ASSIGN_OR_RETURN(const float factor, GetPositive(file, prefix + "factor"));
  ASSIGN_OR_RETURN(const float low, GetPositive(file, prefix + "low_freq_factor", 1.0));
  ASSIGN_OR_RETURN(const float high, GetPositive(file, prefix + "high_freq_factor", 4.0));
  ASSIGN_OR_RETURN(const int32_t original,
                   GetBounded(file, prefix + "original_context_length", 1, kMaxContext));
  if (low >= high) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %slow_freq_factor is %g, must be below %shigh_freq_factor, %g",
                        file.path(), prefix, low, prefix, high));
  }
  for (float& inv_freq : config.rope_inv_freq) {
    const double turns = original * double{inv_freq} / (2 * std::numbers::pi);
    const double blend = std::clamp((turns - low) / (double{high} - low), 0.0, 1.0);
    inv_freq = static_cast<float>(inv_freq * ((1 - blend) / factor + blend));
  }
  return absl::OkStatus();
}

absl::Status ApplyRopeScaling(const GgufFile& file, ModelConfig& config) {
  ASSIGN_OR_RETURN(const std::string_view type, GetString(file, "llama.rope.scaling.type", ""));
  const bool has_factors = file.FindTensor("rope_freqs.weight") != nullptr;
  if (type == "llama3" && !has_factors) return ApplyLlama3Scaling(file, config);
  if (!type.empty() && type != "none" && type != "linear" && type != "llama3") {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": llama.rope.scaling.type is '",
                                                   CleanName(type),
                                                   "'; Tandem knows none, linear and llama3"));
  }
  float factor = 1.0f;
  if (type == "linear") {
    ASSIGN_OR_RETURN(factor, GetPositive(file, "llama.rope.scaling.factor", 1.0));
  } else if (type.empty()) {  // as files before 2024 said it
    ASSIGN_OR_RETURN(factor, GetPositive(file, "llama.rope.scale_linear", 1.0));
  }
  for (float& inv_freq : config.rope_inv_freq) inv_freq /= factor;
  return ApplyRopeFactors(file, config);
}

absl::Status ReadRope(const GgufFile& file, ModelConfig& config) {
  ASSIGN_OR_RETURN(config.rope_dim,
                   GetBounded(file, "llama.rope.dimension_count", 2, kMaxDim, config.head_dim));
  RETURN_IF_ERROR(CheckHeads(file, config));
  ASSIGN_OR_RETURN(config.rope_theta, GetPositive(file, "llama.rope.freq_base", 10000.0));
  for (int32_t i = 0; i < config.rope_dim / 2; ++i) {
    const double exponent = -2.0 * i / config.rope_dim;
    config.rope_inv_freq.push_back(
        static_cast<float>(std::pow(double{config.rope_theta}, exponent)));
  }
  RETURN_IF_ERROR(ApplyRopeScaling(file, config));
  for (const float inv_freq : config.rope_inv_freq) {
    if (!std::isfinite(inv_freq)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: llama.rope.freq_base %g with its scaling gives angles that are "
                          "not finite",
                          file.path(), config.rope_theta));
    }
  }
  return absl::OkStatus();
}

// The list of a trimmed draft; the vocabulary is then as large as the file's tokens say.
absl::Status ReadKeptIds(const GgufFile& file, ModelConfig& config) {
  ASSIGN_OR_RETURN(const std::vector<int64_t> ids, file.GetInts(kKeptIdsKey));
  const int32_t num_rows = config.vocab_size;
  ASSIGN_OR_RETURN(config.vocab_size, GetBounded(file, "llama.vocab_size", 1, kMaxVocab));
  if (!config.tied_head || ids.empty() || static_cast<int64_t>(ids.size()) + 1 != num_rows) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %s has %d ids, but token_embd.weight has %d rows, one of them for "
                        "all other ids, and must be the head too",
                        file.path(), kKeptIdsKey, ids.size(), num_rows));
  }
  std::vector<bool> seen(static_cast<size_t>(config.vocab_size));
  for (const int64_t id : ids) {
    if (id < 0 || id >= config.vocab_size || seen[static_cast<size_t>(id)]) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: %s has id %d twice or out of the vocabulary of %d", file.path(),
                          kKeptIdsKey, id, config.vocab_size));
    }
    seen[static_cast<size_t>(id)] = true;
    config.kept_ids.push_back(static_cast<int32_t>(id));
  }
  return absl::OkStatus();
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
  config.tied_head = file.FindTensor("output.weight") == nullptr;
  if (file.FindValue(kKeptIdsKey) != nullptr) return ReadKeptIds(file, config);
  const auto tokens = file.GetStrings("tokenizer.ggml.tokens");
  if (tokens.ok() && static_cast<int64_t>(tokens->size()) != config.vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %d tokens, but %d rows of token_embd.weight", file.path(),
                        tokens->size(), config.vocab_size));
  }
  ASSIGN_OR_RETURN(const int32_t claimed,
                   GetBounded(file, "llama.vocab_size", 1, kMaxVocab, config.vocab_size));
  if (claimed != config.vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: llama.vocab_size is %d, but token_embd.weight has %d rows",
                        file.path(), claimed, config.vocab_size));
  }
  return absl::OkStatus();
}

absl::Status ReadHeads(const GgufFile& file, ModelConfig& config) {
  ASSIGN_OR_RETURN(config.num_heads, GetBounded(file, "llama.attention.head_count", 1, 4096));
  ASSIGN_OR_RETURN(config.num_kv_heads, GetBounded(file, "llama.attention.head_count_kv", 1,
                                                   config.num_heads, config.num_heads));
  if (file.FindValue("llama.attention.key_length") == nullptr &&
      config.hidden_dim % config.num_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: llama.embedding_length %d is not a multiple of %d heads, and there is "
                        "no llama.attention.key_length",
                        file.path(), config.hidden_dim, config.num_heads));
  }
  ASSIGN_OR_RETURN(config.head_dim, GetBounded(file, "llama.attention.key_length", 1, 4096,
                                               config.hidden_dim / config.num_heads));
  ASSIGN_OR_RETURN(const int32_t value_dim,
                   GetBounded(file, "llama.attention.value_length", 1, 4096, config.head_dim));
  if (value_dim != config.head_dim) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: values are %d wide and keys %d; Tandem needs them equal", file.path(),
                        value_dim, config.head_dim));
  }
  return absl::OkStatus();
}

absl::Status CheckArchitecture(const GgufFile& file) {
  const absl::StatusOr<std::string_view> architecture = file.GetString("general.architecture");
  RETURN_IF_ERROR(MissingIsInvalid(architecture.status()));
  if (*architecture != "llama") {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path(), ": the architecture is '", CleanName(*architecture), "'; Tandem runs llama"));
  }
  ASSIGN_OR_RETURN(const int32_t num_experts,
                   GetBounded(file, "llama.expert_count", 0, kMaxDim, 0));
  if (num_experts > 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s: a mixture of %d experts; Tandem runs dense models", file.path(), num_experts));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ModelConfigFromGguf(const GgufFile& file) {
  RETURN_IF_ERROR(CheckArchitecture(file));
  ModelConfig config;
  ASSIGN_OR_RETURN(const std::string_view name, GetString(file, "general.name", file.path()));
  config.name = CleanName(name);
  ASSIGN_OR_RETURN(config.num_layers, GetBounded(file, "llama.block_count", 1, kMaxLayers));
  ASSIGN_OR_RETURN(config.hidden_dim, GetBounded(file, "llama.embedding_length", 32, kMaxDim));
  ASSIGN_OR_RETURN(config.ffn_dim, GetBounded(file, "llama.feed_forward_length", 32, kMaxDim));
  ASSIGN_OR_RETURN(config.context_length, GetBounded(file, "llama.context_length", 1, kMaxContext));
  ASSIGN_OR_RETURN(config.norm_epsilon,
                   GetPositive(file, "llama.attention.layer_norm_rms_epsilon", 1e-5));
  RETURN_IF_ERROR(ReadHeads(file, config));
  RETURN_IF_ERROR(ReadRope(file, config));
  RETURN_IF_ERROR(ReadVocabulary(file, config));
  for (const GgufTensor& tensor : file.tensors()) config.num_parameters += tensor.num_elements();
  return config;
}

}  // namespace tandem
