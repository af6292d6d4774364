#include "common/tokenizer/tokenizer_spec.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/tokenizer/utf8.h"

namespace tandem {
namespace {

constexpr std::array<std::string_view, 13> kEndOfTurnTexts = {
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>",    "<|end_of_text|>", "<|endoftext|>",      "<|end|>",
    "<|return|>", "<|call|>",   "<end_of_turn>", "<|end_of_turn|>", "<end_of_utterance>", "<EOT>",
    "<|eos|>",
};

constexpr std::array<std::string_view, 9> kOtherMarkerTexts = {
    "<|im_start|>", "<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>", "<|start|>",
    "<|message|>",  "<start_of_turn>",     "<|start_of_role|>", "<|end_of_role|>",
};

template <size_t n>
bool Contains(const std::array<std::string_view, n>& texts, std::string_view text) {
  return std::find(texts.begin(), texts.end(), text) != texts.end();
}

int32_t HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

absl::Status ValidateTokens(const TokenizerSpec& spec) {
  if (spec.tokens.empty()) return absl::InvalidArgumentError("the vocabulary is empty");
  const auto size = static_cast<int64_t>(spec.tokens.size());
  if (size > TokenizerSpec::kMaxTokens) {
    return absl::InvalidArgumentError(absl::StrCat("the vocabulary has ", size, " tokens, at most ",
                                                   TokenizerSpec::kMaxTokens, " are supported"));
  }
  int64_t total_bytes = 0;
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    const std::string& text = spec.tokens[id];
    const auto bytes = static_cast<int64_t>(text.size());
    total_bytes += bytes;
    if (bytes > TokenizerSpec::kMaxTokenBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", id, " has ", bytes, " bytes, at most ",
                       TokenizerSpec::kMaxTokenBytes, " are supported"));
    }
    if (!IsValidUtf8(text)) {
      return absl::InvalidArgumentError(absl::StrCat("token ", id, " is not UTF-8"));
    }
  }
  if (total_bytes > TokenizerSpec::kMaxVocabularyBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the vocabulary has ", total_bytes, " bytes of text, at most ",
                     TokenizerSpec::kMaxVocabularyBytes, " are supported"));
  }
  return absl::OkStatus();
}

absl::Status ValidateTypes(const TokenizerSpec& spec) {
  if (spec.types.empty()) return absl::OkStatus();
  if (spec.types.size() != spec.tokens.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "there are ", spec.types.size(), " token types for ", spec.tokens.size(), " tokens"));
  }
  for (size_t id = 0; id < spec.types.size(); ++id) {
    const auto type = static_cast<int32_t>(spec.types[id]);
    if (type < 0 || type > static_cast<int32_t>(TokenType::kByte)) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", id, " has type ", type, ", which is not in [0, 6]"));
    }
    if (spec.types[id] == TokenType::kByte && ParseByteToken(spec.tokens[id]) < 0) {
      return absl::InvalidArgumentError(absl::StrCat("byte token ", id, " reads \"",
                                                     spec.tokens[id],
                                                     "\" instead of \"<0x00>\" to \"<0xFF>\""));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateScores(const TokenizerSpec& spec) {
  if (spec.model != TokenizerSpec::Model::kSentencePieceBpe) return absl::OkStatus();
  if (spec.scores.size() != spec.tokens.size()) {
    return absl::InvalidArgumentError(absl::StrCat("there are ", spec.scores.size(), " scores for ",
                                                   spec.tokens.size(), " tokens"));
  }
  for (size_t id = 0; id < spec.scores.size(); ++id) {
    if (std::isnan(spec.scores[id])) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", id, " has a score that is no number"));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateId(const TokenizerSpec& spec, std::string_view name, int32_t id) {
  if (id < -1 || id >= static_cast<int64_t>(spec.tokens.size())) {
    return absl::InvalidArgumentError(absl::StrCat("the ", std::string(name), " token is ", id,
                                                   ", the vocabulary has ", spec.tokens.size(),
                                                   " tokens"));
  }
  return absl::OkStatus();
}

absl::Status ValidateIds(const TokenizerSpec& spec) {
  RETURN_IF_ERROR(ValidateId(spec, "bos", spec.bos_id));
  RETURN_IF_ERROR(ValidateId(spec, "eos", spec.eos_id));
  RETURN_IF_ERROR(ValidateId(spec, "eot", spec.eot_id));
  RETURN_IF_ERROR(ValidateId(spec, "eom", spec.eom_id));
  RETURN_IF_ERROR(ValidateId(spec, "unk", spec.unk_id));
  RETURN_IF_ERROR(ValidateId(spec, "pad", spec.pad_id));
  if (spec.add_bos && spec.bos_id < 0) {
    return absl::InvalidArgumentError("a bos token is to be added, but there is none");
  }
  if (spec.add_eos && spec.eos_id < 0) {
    return absl::InvalidArgumentError("an eos token is to be added, but there is none");
  }
  if (spec.eos_id >= 0 || spec.eot_id >= 0) return absl::OkStatus();
  if (std::any_of(spec.tokens.begin(), spec.tokens.end(), IsEndOfTurnText)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "there is no eos token, and none that is known to end a turn: nothing would end an answer");
}

}  // namespace

int32_t ParseByteToken(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  const int32_t high = HexDigit(text[3]);
  const int32_t low = HexDigit(text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

bool IsEndOfTurnText(std::string_view text) { return Contains(kEndOfTurnTexts, text); }

bool IsChatMarkerText(std::string_view text) {
  return IsEndOfTurnText(text) || Contains(kOtherMarkerTexts, text);
}

absl::Status ValidateTokenizerSpec(const TokenizerSpec& spec) {
  RETURN_IF_ERROR(ValidateTokens(spec));
  RETURN_IF_ERROR(ValidateTypes(spec));
  RETURN_IF_ERROR(ValidateScores(spec));
  return ValidateIds(spec);
}

}  // namespace tandem
