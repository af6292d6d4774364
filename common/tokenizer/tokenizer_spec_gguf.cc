// TokenizerSpecFromGguf: the fields of tokenizer.ggml.*, one by one.
#include <array>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/tokenizer/tokenizer_spec.h"

namespace tandem {
namespace {

constexpr char kModelKey[] = "tokenizer.ggml.model";
constexpr char kPreKey[] = "tokenizer.ggml.pre";
constexpr char kTokensKey[] = "tokenizer.ggml.tokens";
constexpr char kTypesKey[] = "tokenizer.ggml.token_type";
constexpr char kScoresKey[] = "tokenizer.ggml.scores";
constexpr char kMergesKey[] = "tokenizer.ggml.merges";

struct NamedPreTokenizer {
  std::string_view name;
  PreTokenizer pre_tokenizer;
};

constexpr std::array<NamedPreTokenizer, 8> kPreTokenizers = {{
    {"default", PreTokenizer::kDefault},
    {"gpt-2", PreTokenizer::kGpt2},
    {"llama-bpe", PreTokenizer::kLlama3},
    {"llama3", PreTokenizer::kLlama3},
    {"llama-v3", PreTokenizer::kLlama3},
    {"smollm", PreTokenizer::kSmolLm},
    {"starcoder", PreTokenizer::kSmolLm},
    {"refact", PreTokenizer::kSmolLm},
}};

absl::Status ReadModel(const GgufFile& file, TokenizerSpec* spec) {
  if (file.FindValue(kModelKey) == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), " has no tokenizer: ", kModelKey, " is missing"));
  }
  ASSIGN_OR_RETURN(const std::string_view model, file.GetString(kModelKey));
  if (model == "gpt2") {
    spec->model = TokenizerSpec::Model::kByteLevelBpe;
  } else if (model == "llama") {
    spec->model = TokenizerSpec::Model::kSentencePieceBpe;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat(kModelKey, " is \"", std::string(model),
                     "\"; known are gpt2 (byte-level BPE) and llama (SentencePiece)"));
  }
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const GgufFile& file, TokenizerSpec* spec) {
  if (spec->model != TokenizerSpec::Model::kByteLevelBpe) return absl::OkStatus();
  std::string_view name = "default";
  if (file.FindValue(kPreKey) != nullptr) {
    ASSIGN_OR_RETURN(name, file.GetString(kPreKey));
  }
  for (const NamedPreTokenizer& known : kPreTokenizers) {
    if (known.name != name) continue;
    spec->pre_tokenizer = known.pre_tokenizer;
    spec->ignore_merges = known.pre_tokenizer == PreTokenizer::kLlama3;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      kPreKey, " is \"", std::string(name), "\"; known are ",
      absl::StrJoin(kPreTokenizers, ", ", [](std::string* out, const NamedPreTokenizer& known) {
        out->append(known.name);
      })));
}

absl::Status ReadTokens(const GgufFile& file, TokenizerSpec* spec) {
  ASSIGN_OR_RETURN(const absl::Span<const std::string_view> tokens, file.GetStrings(kTokensKey));
  spec->tokens.assign(tokens.begin(), tokens.end());

  if (file.FindValue(kTypesKey) == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::vector<int64_t> types, file.GetInts(kTypesKey));
  spec->types.reserve(types.size());
  for (size_t id = 0; id < types.size(); ++id) {
    if (types[id] < 0 || types[id] > static_cast<int64_t>(TokenType::kByte)) {
      return absl::InvalidArgumentError(
          absl::StrCat(kTypesKey, "[", id, "] is ", types[id], ", which is not in [0, 6]"));
    }
    spec->types.push_back(static_cast<TokenType>(types[id]));
  }
  return absl::OkStatus();
}

absl::Status ReadRules(const GgufFile& file, TokenizerSpec* spec) {
  if (spec->model == TokenizerSpec::Model::kSentencePieceBpe) {
    ASSIGN_OR_RETURN(spec->scores, file.GetFloats(kScoresKey));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const absl::Span<const std::string_view> merges, file.GetStrings(kMergesKey));
  spec->merges.assign(merges.begin(), merges.end());
  return absl::OkStatus();
}

absl::Status ReadId(const GgufFile& file, std::string_view key, int32_t* id) {
  if (file.FindValue(key) == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int64_t value, file.GetInt(key));
  // Some converters write 2^32 - 1 where there is none.
  if (value == std::numeric_limits<uint32_t>::max()) return absl::OkStatus();
  if (value < 0 || value > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(key), " is ", value, ", which is no token id"));
  }
  *id = static_cast<int32_t>(value);
  return absl::OkStatus();
}

absl::Status ReadIds(const GgufFile& file, TokenizerSpec* spec) {
  RETURN_IF_ERROR(ReadId(file, "tokenizer.ggml.bos_token_id", &spec->bos_id));
  RETURN_IF_ERROR(ReadId(file, "tokenizer.ggml.eos_token_id", &spec->eos_id));
  RETURN_IF_ERROR(ReadId(file, "tokenizer.ggml.eot_token_id", &spec->eot_id));
  RETURN_IF_ERROR(ReadId(file, "tokenizer.ggml.eom_token_id", &spec->eom_id));
  RETURN_IF_ERROR(ReadId(file, "tokenizer.ggml.unknown_token_id", &spec->unk_id));
  return ReadId(file, "tokenizer.ggml.padding_token_id", &spec->pad_id);
}

absl::Status ReadFlag(const GgufFile& file, std::string_view key, bool* flag) {
  if (file.FindValue(key) == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(*flag, file.GetBool(key));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> TokenizerSpecFromGguf(const GgufFile& file) {
  TokenizerSpec spec;
  RETURN_IF_ERROR(ReadModel(file, &spec));
  RETURN_IF_ERROR(ReadPreTokenizer(file, &spec));
  RETURN_IF_ERROR(ReadTokens(file, &spec));
  RETURN_IF_ERROR(ReadRules(file, &spec));
  RETURN_IF_ERROR(ReadIds(file, &spec));

  // What llama.cpp assumes where the file is silent.
  const bool sentence_piece = spec.model == TokenizerSpec::Model::kSentencePieceBpe;
  const bool llama3 = !sentence_piece && spec.pre_tokenizer == PreTokenizer::kLlama3;
  spec.add_bos = (sentence_piece || llama3) && spec.bos_id >= 0;
  spec.add_space_prefix = sentence_piece;
  RETURN_IF_ERROR(ReadFlag(file, "tokenizer.ggml.add_bos_token", &spec.add_bos));
  RETURN_IF_ERROR(ReadFlag(file, "tokenizer.ggml.add_eos_token", &spec.add_eos));
  RETURN_IF_ERROR(ReadFlag(file, "tokenizer.ggml.add_space_prefix", &spec.add_space_prefix));
  // Byte-level BPE has no such prefix here, whatever the file says.
  spec.add_space_prefix = spec.add_space_prefix && sentence_piece;

  RETURN_IF_ERROR(ValidateTokenizerSpec(spec));
  return spec;
}

}  // namespace tandem
