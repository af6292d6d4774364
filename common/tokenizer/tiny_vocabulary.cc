#include "common/tokenizer/tiny_vocabulary.h"

#include <gtest/gtest.h>

#include <utility>

#include "absl/strings/str_format.h"
#include "common/tokenizer/utf8.h"

namespace tandem {
namespace {

void Add(TokenizerSpec* spec, std::string text, TokenType type, float score = 0.0f) {
  spec->tokens.push_back(std::move(text));
  spec->types.push_back(type);
  spec->scores.push_back(score);
}

int32_t LastId(const TokenizerSpec& spec) { return static_cast<int32_t>(spec.tokens.size()) - 1; }

}  // namespace

std::string SpelledInAlphabet(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    const int byte = static_cast<uint8_t>(c);
    char32_t code_point = static_cast<char32_t>(byte);
    if (byte <= 0x20) code_point += 0x100;
    if (byte >= 0x7F && byte <= 0xA0) code_point += 0x121 - 0x7F;
    if (byte == 0xAD) code_point = 0x143;
    AppendUtf8(code_point, &text);
  }
  return text;
}

TokenizerSpec TinyByteLevelSpec() {
  TokenizerSpec spec;
  spec.model = TokenizerSpec::Model::kByteLevelBpe;
  spec.pre_tokenizer = PreTokenizer::kGpt2;
  for (int byte = 0; byte < 256; ++byte) {
    Add(&spec, SpelledInAlphabet(std::string(1, static_cast<char>(byte))), TokenType::kNormal);
  }
  const std::pair<std::string, std::string> merges[] = {{"h", "e"},    {"l", "l"}, {"he", "ll"},
                                                        {"hell", "o"}, {" ", "w"}, {" w", "o"}};
  for (const auto& [left, right] : merges) {
    Add(&spec, SpelledInAlphabet(left + right), TokenType::kNormal);
    spec.merges.push_back(SpelledInAlphabet(left) + " " + SpelledInAlphabet(right));
  }
  Add(&spec, "<|im_start|>", TokenType::kControl);
  spec.bos_id = LastId(spec);
  Add(&spec, "<|im_end|>", TokenType::kControl);
  spec.eos_id = LastId(spec);
  Add(&spec, "<|pad|>", TokenType::kControl);
  spec.pad_id = LastId(spec);
  Add(&spec, "<tool>", TokenType::kUserDefined);
  spec.scores.clear();
  return spec;
}

TokenizerSpec TinySentencePieceSpec() {
  TokenizerSpec spec;
  spec.model = TokenizerSpec::Model::kSentencePieceBpe;
  spec.add_space_prefix = true;
  spec.add_bos = true;
  Add(&spec, "<unk>", TokenType::kUnknown);
  Add(&spec, "<s>", TokenType::kControl);
  Add(&spec, "</s>", TokenType::kControl);
  spec.unk_id = 0;
  spec.bos_id = 1;
  spec.eos_id = 2;
  for (int byte = 0; byte < 256; ++byte) {
    Add(&spec, absl::StrFormat("<0x%02X>", byte), TokenType::kByte);
  }
  const std::string space(kSentencePieceSpace);
  Add(&spec, space, TokenType::kNormal, -100);
  for (char letter = 'a'; letter <= 'z'; ++letter) {
    Add(&spec, std::string(1, letter), TokenType::kNormal, -100);
  }
  Add(&spec, "he", TokenType::kNormal, -2);
  Add(&spec, "ll", TokenType::kNormal, -1);
  Add(&spec, "hell", TokenType::kNormal, -3);
  Add(&spec, "hello", TokenType::kNormal, -4);
  Add(&spec, space + "hello", TokenType::kNormal, -5);
  Add(&spec, space + "w", TokenType::kNormal, -6);
  return spec;
}

std::unique_ptr<Tokenizer> MakeTokenizer(TokenizerSpec spec) {
  auto tokenizer = Tokenizer::Create(std::move(spec));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

}  // namespace tandem
