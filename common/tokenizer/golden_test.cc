// Our ids against those of Hugging Face `tokenizers` and of sentencepiece, on the
// vocabularies of real models. Skipped where a vocabulary is absent.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <sstream>

#include "common/tokenizer/char_class.h"
#include "common/tokenizer/golden_test_support.h"
#include "common/tokenizer/incremental_decoder.h"
#include "common/tokenizer/tiny_vocabulary.h"
#include "common/tokenizer/utf8.h"

namespace tandem {
namespace {

constexpr char kLlama3Vocabulary[] = "ggml-vocab-llama-bpe.gguf";
constexpr char kLlama2Vocabulary[] = "ggml-vocab-llama-spm.gguf";
// More would drown the first ones, which say it all.
constexpr int kMaxReported = 20;

#define SKIP_WITHOUT(path) \
  if (!FileExists(path)) GTEST_SKIP() << "no vocabulary at " << (path)

void ExpectGolden(const Tokenizer& tokenizer, std::string_view golden_name, size_t min_lines) {
  const std::vector<GoldenLine> lines = ReadGolden(golden_name);
  ASSERT_GE(lines.size(), min_lines);
  int num_different = 0;
  for (const GoldenLine& line : lines) {
    const auto ids = tokenizer.Encode(line.text, {.special = line.special});
    ASSERT_TRUE(ids.ok()) << ids.status();
    if (*ids == line.ids || ++num_different > kMaxReported) continue;
    ADD_FAILURE() << golden_name << " " << (line.special == SpecialTokens::kParse ? "p" : "t")
                  << " \"" << Escaped(line.text) << "\": " << testing::PrintToString(*ids)
                  << ", the reference has " << testing::PrintToString(line.ids);
  }
  EXPECT_EQ(num_different, 0) << "of " << lines.size();
}

// The bytes that have a token of their own.
std::array<bool, 256> ByteTokens(const Tokenizer& tokenizer) {
  std::array<bool, 256> has_token{};
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string_view bytes = tokenizer.TokenBytes(id, /*render_special=*/false);
    if (bytes.size() == 1) has_token[static_cast<uint8_t>(bytes[0])] = true;
  }
  return has_token;
}

// Decoding gives the text back, but for bytes that are not UTF-8 and those that the
// vocabulary lacks.
void ExpectRoundTrip(const Tokenizer& tokenizer, std::string_view golden_name) {
  const std::array<bool, 256> has_token = ByteTokens(tokenizer);
  int num_texts = 0;
  for (const GoldenLine& line : ReadGolden(golden_name)) {
    const std::string text = ReplaceInvalidUtf8(line.text);
    const bool complete = std::all_of(
        text.begin(), text.end(), [&](char byte) { return has_token[static_cast<uint8_t>(byte)]; });
    // A visible U+2581 in a text is a space to SentencePiece.
    if (text.find(kSentencePieceSpace) != std::string::npos) continue;
    if (!complete || line.special == SpecialTokens::kParse) continue;
    ++num_texts;
    EXPECT_EQ(tokenizer.Decode(line.ids, /*render_special=*/true), text);
    IncrementalDecoder decoder(&tokenizer);
    std::string incremental;
    for (const int32_t id : line.ids) incremental += decoder.Append(id);
    EXPECT_EQ(incremental + decoder.Flush(), text);
  }
  EXPECT_GT(num_texts, 1000);
}

TEST(GoldenTest, SmolLm2EqualsHuggingFace) {
  SKIP_WITHOUT(SmolLm2Path());
  const auto tokenizer = MakeTokenizer(ReadSpecOrDie(SmolLm2Path()));
  ExpectGolden(*tokenizer, "smollm2_golden.txt", 3500);
  ExpectRoundTrip(*tokenizer, "smollm2_golden.txt");
}

TEST(GoldenTest, SmolLm2VocabularyWithOtherPreTokenizersEqualsHuggingFace) {
  SKIP_WITHOUT(SmolLm2Path());
  TokenizerSpec spec = ReadSpecOrDie(SmolLm2Path());
  spec.pre_tokenizer = PreTokenizer::kGpt2;
  ExpectGolden(*MakeTokenizer(spec), "smollm2_as_gpt2_golden.txt", 700);
  spec.pre_tokenizer = PreTokenizer::kDefault;
  ExpectGolden(*MakeTokenizer(spec), "smollm2_as_default_golden.txt", 700);
}

TEST(GoldenTest, Llama3EqualsHuggingFace) {
  SKIP_WITHOUT(SharedDataPath(kLlama3Vocabulary));
  const auto tokenizer = MakeTokenizer(ReadSpecOrDie(SharedDataPath(kLlama3Vocabulary)));
  ExpectGolden(*tokenizer, "llama3_golden.txt", 2000);
  ExpectRoundTrip(*tokenizer, "llama3_golden.txt");
}

TEST(GoldenTest, Llama2EqualsSentencePiece) {
  SKIP_WITHOUT(SharedDataPath(kLlama2Vocabulary));
  const auto tokenizer = MakeTokenizer(ReadSpecOrDie(SharedDataPath(kLlama2Vocabulary)));
  ExpectGolden(*tokenizer, "llama2_golden.txt", 2000);
  ExpectRoundTrip(*tokenizer, "llama2_golden.txt");
}

// The cases that llama.cpp keeps beside its vocabulary.
TEST(GoldenTest, Llama2EqualsLlamaCpp) {
  const std::string path = SharedDataPath(kLlama2Vocabulary);
  SKIP_WITHOUT(path);
  const auto tokenizer = MakeTokenizer(ReadSpecOrDie(path));
  const std::string texts = ReadFileOrDie(path + ".inp");
  std::istringstream answers(ReadFileOrDie(path + ".out"));
  const std::string separator = "\n__ggml_vocab_test__\n";

  int num_cases = 0;
  for (size_t begin = 0; begin < texts.size(); ++num_cases) {
    const size_t end = texts.find(separator, begin);
    if (end == std::string::npos) break;
    std::string answer;
    ASSERT_TRUE(std::getline(answers, answer));
    std::istringstream numbers(answer);
    std::vector<int32_t> ids;
    for (int32_t id; numbers >> id;) ids.push_back(id);
    const std::string text = texts.substr(begin, end - begin);
    EXPECT_EQ(*tokenizer->Encode(text), ids) << "\"" << Escaped(text) << "\"";
    begin = end + separator.size();
  }
  EXPECT_GT(num_cases, 40);
}

TEST(GoldenTest, SpecialTokensOfRealModelsAreKnown) {
  SKIP_WITHOUT(SmolLm2Path());
  const auto tokenizer = MakeTokenizer(ReadSpecOrDie(SmolLm2Path()));
  EXPECT_EQ(tokenizer->vocab_size(), 49152);
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_FALSE(tokenizer->add_bos());
  EXPECT_TRUE(tokenizer->IsEndOfGeneration(0));  // <|endoftext|>
  EXPECT_TRUE(tokenizer->IsEndOfGeneration(2));  // <|im_end|>
  EXPECT_FALSE(tokenizer->IsEndOfGeneration(1));
  EXPECT_TRUE(tokenizer->IsSpecial(16));
  EXPECT_FALSE(tokenizer->IsSpecial(17));
  EXPECT_EQ(tokenizer->FindToken("<|im_start|>"), 1);

  SKIP_WITHOUT(SharedDataPath(kLlama3Vocabulary));
  const auto llama3 = MakeTokenizer(ReadSpecOrDie(SharedDataPath(kLlama3Vocabulary)));
  EXPECT_TRUE(llama3->add_bos());
  EXPECT_TRUE(llama3->IsEndOfGeneration(128001));  // <|end_of_text|>
  EXPECT_TRUE(llama3->IsEndOfGeneration(128009));  // <|eot_id|>
}

// A digit more or a letter less moves the boundaries of pieces: all code points.
TEST(GoldenTest, CharacterClassesEqualHuggingFaceForEveryCodePoint) {
  std::vector<CharClass> expected(0x110000, CharClass::kOther);
  std::istringstream file(ReadFileOrDie("common/tokenizer/testdata/char_classes.txt"));
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    const CharClass char_class = word == "L"   ? CharClass::kLetter
                                 : word == "N" ? CharClass::kNumber
                                 : word == "S" ? CharClass::kSpace
                                               : CharClass::kPunctuation;
    while (words >> word) {
      const size_t dash = word.find('-');
      const auto first = std::stoul(word.substr(0, dash), nullptr, 16);
      const auto last =
          dash == std::string::npos ? first : std::stoul(word.substr(dash + 1), nullptr, 16);
      for (auto c = first; c <= last; ++c) expected[c] = char_class;
    }
  }
  int num_different = 0;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    if (ClassOf(c) == expected[c] || ++num_different > kMaxReported) continue;
    ADD_FAILURE() << "U+" << std::hex << static_cast<uint32_t>(c) << " has class " << std::dec
                  << static_cast<int>(ClassOf(c)) << ", the reference has "
                  << static_cast<int>(expected[c]);
  }
  EXPECT_EQ(num_different, 0);
}

}  // namespace
}  // namespace tandem
