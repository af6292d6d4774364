// AddTokenizer: tokenizer.json and tokenizer_config.json as GGUF's arrays.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/safetensors/checkpoint_config.h"
#include "common/safetensors/json_reader.h"

namespace tandem::internal {
namespace {

using nlohmann::json;

constexpr int64_t kMaxTokens = int64_t{1} << 21;
// Token types as GGUF numbers them.
constexpr int64_t kNormal = 1;
constexpr int64_t kControl = 3;
constexpr int64_t kUserDefined = 4;
constexpr int64_t kUnused = 5;
constexpr int64_t kByte = 6;

absl::Status Unsupported(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.json: ", what));
}

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<int64_t> types;
  std::vector<std::string> merges;
  bool is_sentence_piece = false;
};

absl::Status Place(const std::string& text, const json& id, int64_t type, Vocabulary& vocabulary) {
  if (!id.is_number_unsigned() || id.get<uint64_t>() >= uint64_t{kMaxTokens}) {
    return Unsupported("a token with an id that cannot be");
  }
  const auto index = id.get<size_t>();
  if (index >= vocabulary.tokens.size()) {
    vocabulary.tokens.resize(index + 1);
    vocabulary.types.resize(index + 1, kUnused);
  }
  vocabulary.tokens[index] = text;
  vocabulary.types[index] = type;
  return absl::OkStatus();
}

bool IsByteText(const std::string& text) {
  return text.size() == 6 && absl::StartsWith(text, "<0x") && text.back() == '>';
}

// "left right", or ["left", "right"] as newer files have it.
absl::Status ReadMerges(const json& merges, Vocabulary& vocabulary) {
  for (const json& merge : merges) {
    if (merge.is_string()) {
      vocabulary.merges.push_back(merge.get<std::string>());
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      vocabulary.merges.push_back(
          absl::StrCat(merge[0].get<std::string>(), " ", merge[1].get<std::string>()));
    } else {
      return Unsupported("a merge that is none");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Vocabulary> ReadVocabulary(const json& tokenizer, int64_t vocab_size) {
  const json model = JsonObject(tokenizer, "model");
  ASSIGN_OR_RETURN(const std::string type, JsonString(model, "type", "BPE"));
  if (type != "BPE") return Unsupported("a model of type " + type + "; Tandem knows BPE");
  Vocabulary vocabulary;
  ASSIGN_OR_RETURN(vocabulary.is_sentence_piece, JsonBool(model, "byte_fallback", false));
  const json tokens = JsonObject(model, "vocab");
  for (const auto& [text, id] : tokens.items()) {
    const bool is_byte = vocabulary.is_sentence_piece && IsByteText(text);
    RETURN_IF_ERROR(Place(text, id, is_byte ? kByte : kNormal, vocabulary));
  }
  if (model.contains("merges")) RETURN_IF_ERROR(ReadMerges(model["merges"], vocabulary));
  if (tokenizer.contains("added_tokens") && tokenizer["added_tokens"].is_array()) {
    for (const json& added : tokenizer["added_tokens"]) {
      ASSIGN_OR_RETURN(const std::string text, JsonString(added, "content", ""));
      ASSIGN_OR_RETURN(const bool is_special, JsonBool(added, "special", false));
      if (!added.is_object() || !added.contains("id")) return Unsupported("a token without an id");
      RETURN_IF_ERROR(Place(text, added["id"], is_special ? kControl : kUserDefined, vocabulary));
    }
  }
  // The output has a row for each id; those without a token are padding.
  const auto size = static_cast<size_t>(std::clamp<int64_t>(vocab_size, 0, kMaxTokens));
  while (vocabulary.tokens.size() < size) {
    vocabulary.tokens.emplace_back();
    vocabulary.types.push_back(kUnused);
  }
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.tokens[id].empty()) vocabulary.tokens[id] = absl::StrCat("<|unused_", id, "|>");
  }
  return vocabulary;
}

// Which of the known pre-tokenizers it is, by what tells them apart.
std::string PreTokenizerOf(const json& tokenizer) {
  const std::string text =
      JsonObject(tokenizer, "pre_tokenizer").dump(-1, ' ', false, json::error_handler_t::replace);
  if (absl::StrContains(text, "\\\\p{N}{1,3}")) return "llama-bpe";
  if (absl::StrContains(text, "\"Digits\"")) return "smollm";
  return "gpt-2";
}

// Of SentencePiece: a token that is merged earlier scores higher.
std::vector<double> ScoresOf(const Vocabulary& vocabulary) {
  absl::flat_hash_map<std::string, int64_t> ranks;
  for (size_t i = 0; i < vocabulary.merges.size(); ++i) {
    const std::string& merge = vocabulary.merges[i];
    const size_t space = merge.find(' ');
    if (space == std::string::npos) continue;
    ranks.try_emplace(absl::StrCat(merge.substr(0, space), merge.substr(space + 1)),
                      static_cast<int64_t>(i));
  }
  std::vector<double> scores;
  for (const std::string& token : vocabulary.tokens) {
    const auto rank = ranks.find(token);
    scores.push_back(rank == ranks.end() ? -1e6 : -static_cast<double>(rank->second));
  }
  return scores;
}

// The id of a special token that tokenizer_config.json names by its text; -1.
int64_t NamedToken(const json& config, const char* key, const Vocabulary& vocabulary) {
  if (!config.contains(key)) return -1;
  const json& value = config[key];
  std::string text;
  if (value.is_string()) text = value.get<std::string>();
  if (value.is_object() && value.contains("content") && value["content"].is_string()) {
    text = value["content"].get<std::string>();
  }
  const auto found = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), text);
  return text.empty() || found == vocabulary.tokens.end() ? -1 : found - vocabulary.tokens.begin();
}

// An id, or the first of several.
int64_t ConfiguredId(const json& config, const char* key) {
  if (!config.contains(key)) return -1;
  const json& value = config[key].is_array() && !config[key].empty() ? config[key][0] : config[key];
  return value.is_number_unsigned() && value.get<uint64_t>() < uint64_t{kMaxTokens}
             ? value.get<int64_t>()
             : -1;
}

absl::Status AddIdsAndTemplate(const std::string& folder, const json& config,
                               const Vocabulary& vocabulary, GgufBuilder& builder) {
  const absl::StatusOr<json> file = ReadJsonFile(folder + "/tokenizer_config.json");
  if (!file.ok() && !absl::IsNotFound(file.status())) return file.status();
  const json named = file.ok() ? *file : json::object();
  const std::pair<const char*, const char*> ids[] = {{"bos_token", "bos_token_id"},
                                                     {"eos_token", "eos_token_id"},
                                                     {"unk_token", "unknown_token_id"},
                                                     {"pad_token", "padding_token_id"}};
  for (const auto& [name, key] : ids) {
    int64_t id = NamedToken(named, name, vocabulary);
    if (id < 0) id = ConfiguredId(config, absl::StrCat(name, "_id").c_str());
    if (id >= 0 && id < static_cast<int64_t>(vocabulary.tokens.size())) {
      builder.AddInt(absl::StrCat("tokenizer.ggml.", key), id);
    }
  }
  if (named.contains("add_bos_token") && named["add_bos_token"].is_boolean()) {
    builder.AddBool("tokenizer.ggml.add_bos_token", named["add_bos_token"].get<bool>());
  }
  std::string chat_template;
  if (named.contains("chat_template") && named["chat_template"].is_string()) {
    chat_template = named["chat_template"].get<std::string>();
  } else {
    std::ifstream separate(folder + "/chat_template.jinja", std::ios::binary);
    constexpr size_t kMaxTemplateBytes = 1 << 20;
    chat_template.resize(kMaxTemplateBytes);
    separate.read(chat_template.data(), kMaxTemplateBytes);
    chat_template.resize(static_cast<size_t>(std::max<std::streamsize>(separate.gcount(), 0)));
  }
  if (!chat_template.empty()) builder.AddString("tokenizer.chat_template", chat_template);
  return absl::OkStatus();
}

}  // namespace

absl::Status AddTokenizer(const std::string& folder, const json& config, GgufBuilder& builder) {
  const absl::StatusOr<json> file = ReadJsonFile(folder + "/tokenizer.json");
  if (absl::IsNotFound(file.status())) return absl::OkStatus();
  RETURN_IF_ERROR(file.status());
  ASSIGN_OR_RETURN(const int64_t vocab_size, JsonInt(config, "vocab_size", 0));
  ASSIGN_OR_RETURN(Vocabulary vocabulary, ReadVocabulary(*file, vocab_size));
  if (vocabulary.is_sentence_piece) {
    builder.AddString("tokenizer.ggml.model", "llama");
    builder.AddFloats("tokenizer.ggml.scores", ScoresOf(vocabulary));
  } else {
    builder.AddString("tokenizer.ggml.model", "gpt2");
    builder.AddString("tokenizer.ggml.pre", PreTokenizerOf(*file));
    builder.AddStrings("tokenizer.ggml.merges", vocabulary.merges);
  }
  RETURN_IF_ERROR(AddIdsAndTemplate(folder, config, vocabulary, builder));
  builder.AddInts("tokenizer.ggml.token_type", std::move(vocabulary.types));
  builder.AddStrings("tokenizer.ggml.tokens", std::move(vocabulary.tokens));
  return absl::OkStatus();
}

}  // namespace tandem::internal
