// What files may hold instead of a vocabulary.
#include "common/tokenizer/tokenizer_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "common/gguf/gguf_writer.h"
#include "common/tokenizer/tiny_vocabulary.h"

namespace tandem {
namespace {

using testing::HasSubstr;

// The error of a spec after `damage`.
std::string ErrorAfter(TokenizerSpec spec, const std::function<void(TokenizerSpec*)>& damage) {
  damage(&spec);
  const auto tokenizer = Tokenizer::Create(std::move(spec));
  if (tokenizer.ok()) return "it was made";
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(tokenizer.status().message());
}

TEST(TokenizerSpecTest, DamagedSpecsAreRefusedWithTheReason) {
  const TokenizerSpec bytes = TinyByteLevelSpec();
  const TokenizerSpec pieces = TinySentencePieceSpec();
  using S = TokenizerSpec;
  EXPECT_THAT(ErrorAfter(bytes, [](S* s) { *s = S(); }), HasSubstr("vocabulary is empty"));
  EXPECT_THAT(ErrorAfter(bytes, [](S* s) { s->types.pop_back(); }), HasSubstr("265 token types"));
  EXPECT_THAT(ErrorAfter(bytes, [](S* s) { s->types[3] = static_cast<TokenType>(7); }),
              HasSubstr("token 3 has type 7"));
  EXPECT_THAT(ErrorAfter(bytes, [](S* s) { s->tokens[5] = "\xFF"; }),
              HasSubstr("token 5 is not UTF-8"));
  EXPECT_THAT(ErrorAfter(bytes, [](S* s) { s->tokens[5] = std::string(2000, 'x'); }),
              HasSubstr("token 5 has 2000 bytes"));
  EXPECT_THAT(ErrorAfter(bytes, [](S* s) { s->eos_id = 266; }), HasSubstr("eos token is 266"));
  EXPECT_THAT(ErrorAfter(bytes, [](S* s) { s->bos_id = -2; }), HasSubstr("bos token is -2"));
  EXPECT_THAT(ErrorAfter(bytes,
                         [](S* s) {
                           s->eos_id = -1;
                           s->tokens[263] = "<|x|>";
                         }),
              HasSubstr("nothing would end an answer"));
  EXPECT_THAT(ErrorAfter(bytes,
                         [](S* s) {
                           s->bos_id = -1;
                           s->add_bos = true;
                         }),
              HasSubstr("bos token is to be added"));
  EXPECT_THAT(ErrorAfter(pieces, [](S* s) { s->scores.pop_back(); }), HasSubstr("scores for"));
  EXPECT_THAT(ErrorAfter(pieces, [](S* s) { s->scores[4] = std::nanf(""); }),
              HasSubstr("token 4 has a score that is no number"));
}

TEST(TokenizerSpecTest, ByteTokensMustSpellAByte) {
  EXPECT_EQ(ParseByteToken("<0x00>"), 0);
  EXPECT_EQ(ParseByteToken("<0xfF>"), 255);
  for (const char* text : {"<0x-1>", "<0xZZ>", "<0x100>", "<0x1>", "<0x>", "", "0x01", "<0X01>",
                           "<0x+1>", "<0x 1>", "<0x01"}) {
    EXPECT_EQ(ParseByteToken(text), -1) << text;
    EXPECT_THAT(ErrorAfter(TinySentencePieceSpec(), [&](auto* s) { s->tokens[3] = text; }),
                HasSubstr("byte token 3 reads"));
  }
}

TEST(TokenizerSpecTest, MergesMustNameKnownTokens) {
  for (const char* merge : {"q z", "he zz", "zz he", "☃ a", "h\xFF e"}) {
    EXPECT_THAT(ErrorAfter(TinyByteLevelSpec(), [&](auto* s) { s->merges[2] = merge; }),
                HasSubstr("merge 2"))
        << merge;
  }
  for (const char* merge : {"", " ", "a", " a", "a ", "a b c"}) {
    EXPECT_THAT(ErrorAfter(TinyByteLevelSpec(), [&](auto* s) { s->merges[1] = merge; }),
                HasSubstr("merge 1"))
        << merge;
  }
}

// A merge that makes a special token must not let text become one.
TEST(TokenizerSpecTest, MergesThatMakeSpecialTokensAreLeftOut) {
  TokenizerSpec spec = TinyByteLevelSpec();
  spec.eos_id = 256;  // "he"
  const auto tokenizer = MakeTokenizer(spec);
  EXPECT_EQ(*tokenizer->Encode("he"), (std::vector<int32_t>{'h', 'e'}));
}

TEST(TokenizerSpecTest, SomeOddSpecsAreSound) {
  TokenizerSpec spec = TinyByteLevelSpec();
  spec.types.clear();                                     // all normal
  spec.tokens.insert(spec.tokens.end(), {"", "h", "☃"});  // empty, twice, no bytes
  spec.merges.push_back("h e");                           // twice
  EXPECT_EQ(MakeTokenizer(spec)->Encode("h")->front(), 'h');
  TokenizerSpec pieces = TinySentencePieceSpec();
  pieces.scores[270] = -std::numeric_limits<float>::infinity();
  MakeTokenizer(pieces);
}

// Whatever a file holds, the tokenizer is refused or it works.
TEST(TokenizerSpecTest, RandomDamageNeverHarms) {
  std::mt19937 random(3);
  const std::vector<std::string> texts = {"",       "h",     "he", "ll", "▁",
                                          "<0x0A>", "hello", "Ġ",  "é",  "<s>"};
  const auto any_text = [&] { return texts[random() % texts.size()]; };
  int num_made = 0;
  for (int round = 0; round < 400; ++round) {
    TokenizerSpec spec = round % 2 == 0 ? TinyByteLevelSpec() : TinySentencePieceSpec();
    const auto any_id = [&] { return static_cast<int32_t>(random() % spec.tokens.size()); };
    for (int i = 0; i < 3; ++i) {
      spec.tokens[static_cast<size_t>(any_id())] = any_text();
      spec.types[static_cast<size_t>(any_id())] = static_cast<TokenType>(random() % 6);
    }
    if (random() % 4 == 0) spec.merges.push_back(any_text() + " " + any_text());
    for (int32_t* id : {&spec.bos_id, &spec.eos_id, &spec.unk_id}) {
      if (random() % 4 == 0) *id = any_id() - 1;
    }
    const auto tokenizer = Tokenizer::Create(spec);
    if (!tokenizer.ok()) continue;
    ++num_made;
    for (const auto special : {SpecialTokens::kAsText, SpecialTokens::kParse}) {
      const auto ids =
          (*tokenizer)->Encode("hello <s> é\xFF hell▁wo<|im_end|>", {.special = special});
      ASSERT_TRUE(ids.ok());
      for (const int32_t id : *ids) ASSERT_LT(id, (*tokenizer)->vocab_size());
      (*tokenizer)->Decode(*ids, true);
    }
  }
  EXPECT_GT(num_made, 100);
}

// A vocabulary in a file, written and read back.
class GgufSpecTest : public testing::Test {
 protected:
  GgufSpecTest() {
    writer_.AddString("general.architecture", "llama");
    const TokenizerSpec spec = TinyByteLevelSpec();
    std::vector<int32_t> types;
    for (const TokenType type : spec.types) types.push_back(static_cast<int32_t>(type));
    writer_.AddStrings("tokenizer.ggml.tokens", spec.tokens);
    writer_.AddStrings("tokenizer.ggml.merges", spec.merges);
    writer_.AddInts("tokenizer.ggml.token_type", types);
    writer_.AddUint32("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(spec.eos_id));
  }
  ~GgufSpecTest() override { unlink(path_.c_str()); }

  absl::StatusOr<TokenizerSpec> Read() {
    EXPECT_TRUE(writer_.WriteFile(path_).ok());
    const auto file = GgufFile::Open(path_);
    EXPECT_TRUE(file.ok()) << file.status();
    return TokenizerSpecFromGguf(**file);
  }
  std::string Error() {
    const auto spec = Read();
    return spec.ok() ? "it was read" : std::string(spec.status().message());
  }

  GgufWriter writer_;
  std::string path_ = testing::TempDir() + "tokenizer_spec_test_" + std::to_string(getpid());
};

TEST_F(GgufSpecTest, AVocabularyAloneIsEnough) {
  writer_.AddString("tokenizer.ggml.model", "gpt2");
  writer_.AddString("tokenizer.ggml.pre", "smollm");
  writer_.AddUint32("tokenizer.ggml.padding_token_id", 0xFFFFFFFFu);
  const auto spec = Read();
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->pre_tokenizer, PreTokenizer::kSmolLm);
  EXPECT_FALSE(spec->add_bos);
  EXPECT_EQ(spec->bos_id, -1);
  EXPECT_EQ(spec->pad_id, -1);
  EXPECT_EQ(spec->tokens, TinyByteLevelSpec().tokens);
  EXPECT_EQ(spec->merges, TinyByteLevelSpec().merges);
  EXPECT_EQ(spec->types, TinyByteLevelSpec().types);
}

TEST_F(GgufSpecTest, Llama3AddsBosAndIgnoresMergesUnlessToldOtherwise) {
  writer_.AddString("tokenizer.ggml.model", "gpt2");
  writer_.AddString("tokenizer.ggml.pre", "llama-bpe");
  writer_.AddUint32("tokenizer.ggml.bos_token_id", 262);
  const auto spec = Read();
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_TRUE(spec->add_bos);
  EXPECT_TRUE(spec->ignore_merges);
  writer_.AddBool("tokenizer.ggml.add_bos_token", false);
  EXPECT_FALSE(Read()->add_bos);
}

TEST_F(GgufSpecTest, UnknownNamesAreRefusedWithTheKnownOnes) {
  EXPECT_THAT(Error(), HasSubstr("tokenizer.ggml.model is missing"));
  GgufWriter with_model = writer_;
  writer_.AddString("tokenizer.ggml.model", "rwkv");
  EXPECT_THAT(Error(), HasSubstr("\"rwkv\"; known are gpt2"));
  writer_ = with_model;
  writer_.AddString("tokenizer.ggml.model", "gpt2");
  EXPECT_EQ(Read()->pre_tokenizer, PreTokenizer::kDefault);
  writer_.AddString("tokenizer.ggml.pre", "qwen9");
  EXPECT_THAT(Error(), HasSubstr("\"qwen9\"; known are default, gpt-2, llama-bpe"));
}

TEST_F(GgufSpecTest, FieldsOfAWrongTypeAreRefused) {
  writer_.AddString("tokenizer.ggml.model", "gpt2");
  const GgufWriter sound = writer_;
  writer_.AddFloat("tokenizer.ggml.bos_token_id", 1.0f);
  EXPECT_THAT(Error(), HasSubstr("bos_token_id"));
  writer_ = sound;
  writer_.AddInt32("tokenizer.ggml.bos_token_id", -5);
  EXPECT_THAT(Error(), HasSubstr("bos_token_id is -5"));
  writer_ = sound;
  writer_.AddUint32("tokenizer.ggml.bos_token_id", 70000);
  EXPECT_THAT(Error(), HasSubstr("bos token is 70000"));
  writer_ = sound;
  writer_.AddString("tokenizer.ggml.add_bos_token", "yes");
  EXPECT_THAT(Error(), HasSubstr("add_bos_token"));
  writer_ = sound;
  writer_.AddUint32("tokenizer.ggml.pre", 1);
  EXPECT_THAT(Error(), HasSubstr("tokenizer.ggml.pre"));
}

TEST_F(GgufSpecTest, SentencePieceNeedsScores) {
  writer_.AddString("tokenizer.ggml.model", "llama");
  EXPECT_THAT(Error(), HasSubstr("tokenizer.ggml.scores"));
  writer_.AddInts("tokenizer.ggml.scores", std::vector<int32_t>(266, 1));
  EXPECT_THAT(Error(), HasSubstr("tokenizer.ggml.scores"));
}

}  // namespace
}  // namespace tandem
