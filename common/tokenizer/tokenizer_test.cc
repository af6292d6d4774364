#include "common/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "common/tokenizer/tiny_vocabulary.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr EncodeOptions kParse = {.special = SpecialTokens::kParse};

// The texts of the tokens that `text` becomes.
std::vector<std::string> Texts(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  std::vector<std::string> texts;
  for (const int32_t id : ids) texts.emplace_back(tokenizer.TokenText(id));
  return texts;
}

std::vector<std::string> EncodeTexts(const Tokenizer& tokenizer, std::string_view text,
                                     const EncodeOptions& options = {}) {
  const auto ids = tokenizer.Encode(text, options);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return Texts(tokenizer, *ids);
}

TEST(ByteLevelTest, MergesByRankAndNotFromTheLeft) {
  const auto tokenizer = MakeTokenizer(TinyByteLevelSpec());
  EXPECT_THAT(EncodeTexts(*tokenizer, "hello world"), ElementsAre("hello", "Ġwo", "r", "l", "d"));
  EXPECT_THAT(EncodeTexts(*tokenizer, "lll"), ElementsAre("ll", "l"));
  EXPECT_THAT(EncodeTexts(*tokenizer, ""), IsEmpty());
}

// In the vocabulary, but no merge leads there: only ignore_merges gives it.
TEST(ByteLevelTest, IgnoreMergesTakesWholePiecesFromTheVocabulary) {
  TokenizerSpec spec = TinyByteLevelSpec();
  spec.tokens.push_back("xyz");
  spec.types.push_back(TokenType::kNormal);
  EXPECT_THAT(EncodeTexts(*MakeTokenizer(spec), "xyz"), ElementsAre("x", "y", "z"));
  spec.ignore_merges = true;
  EXPECT_THAT(EncodeTexts(*MakeTokenizer(spec), "xyz"), ElementsAre("xyz"));
}

// As Hugging Face, whose merges then join what was on both sides.
TEST(ByteLevelTest, BytesWithoutATokenAreDropped) {
  TokenizerSpec spec = TinyByteLevelSpec();
  spec.types['x'] = TokenType::kUnused;
  const auto tokenizer = MakeTokenizer(spec);
  EXPECT_THAT(EncodeTexts(*tokenizer, "hxe"), ElementsAre("he"));
  EXPECT_THAT(EncodeTexts(*tokenizer, "x"), IsEmpty());
  EXPECT_EQ(tokenizer->TokenBytes('x', false), "");
}

// What pads a vocabulary is never chosen; an unused id between others may be.
TEST(ByteLevelTest, UnusedIdsAtTheEndAreNotCounted) {
  TokenizerSpec spec = TinyByteLevelSpec();
  const auto size = static_cast<int32_t>(spec.tokens.size());
  EXPECT_EQ(MakeTokenizer(spec)->used_vocab_size(), size);
  for (const TokenType type : {TokenType::kUnused, TokenType::kNormal, TokenType::kUnused}) {
    spec.tokens.push_back("<pad " + std::to_string(spec.tokens.size()) + ">");
    spec.types.push_back(type);
  }
  EXPECT_EQ(MakeTokenizer(spec)->vocab_size(), size + 3);
  EXPECT_EQ(MakeTokenizer(spec)->used_vocab_size(), size + 2);
}

TEST(ByteLevelTest, DecodeGivesEveryByteBack) {
  const auto tokenizer = MakeTokenizer(TinyByteLevelSpec());
  std::string text = "hello, w\xC3\xB6rld \xF0\x9F\xA6\x99\n";
  for (char c = 0; c < 127; ++c) text.push_back(c);
  EXPECT_EQ(tokenizer->Decode(*tokenizer->Encode(text), false), text);
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(tokenizer->TokenBytes(byte, false), std::string(1, static_cast<char>(byte)));
  }
}

TEST(ByteLevelTest, InvalidUtf8BecomesReplacementCharactersAsInPython) {
  const auto tokenizer = MakeTokenizer(TinyByteLevelSpec());
  const auto decoded = [&](std::string_view text) {
    return tokenizer->Decode(*tokenizer->Encode(text), false);
  };
  EXPECT_EQ(decoded("a\xFF\xFE"
                    "b"),
            "a\uFFFD\uFFFDb");
  EXPECT_EQ(decoded("\xF0\x9F\x98"), "\uFFFD");
  EXPECT_EQ(decoded("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(*tokenizer->Encode("\xE2\x82<|im_end|>", kParse),
            *tokenizer->Encode("\uFFFD<|im_end|>", kParse));
}

TEST(SpecialTokensTest, AreTextUnlessAskedFor) {
  const auto tokenizer = MakeTokenizer(TinyByteLevelSpec());
  EXPECT_THAT(EncodeTexts(*tokenizer, "<|im_end|>", kParse), ElementsAre("<|im_end|>"));
  const auto ids = tokenizer->Encode("a<|im_end|>b<|im_start|>");
  ASSERT_TRUE(ids.ok());
  for (const int32_t id : *ids) EXPECT_FALSE(tokenizer->IsSpecial(id));
  EXPECT_EQ(tokenizer->Decode(*ids, false), "a<|im_end|>b<|im_start|>");
}

TEST(SpecialTokensTest, UserDefinedOnesAreAlwaysTokensAndText) {
  const auto tokenizer = MakeTokenizer(TinyByteLevelSpec());
  EXPECT_THAT(EncodeTexts(*tokenizer, "a<tool>b"), ElementsAre("a", "<tool>", "b"));
  const int32_t id = tokenizer->FindToken("<tool>");
  EXPECT_FALSE(tokenizer->IsSpecial(id));
  EXPECT_EQ(tokenizer->TokenBytes(id, false), "<tool>");
}

TEST(SpecialTokensTest, TheLongestIsTaken) {
  TokenizerSpec spec = TinyByteLevelSpec();
  spec.tokens.insert(spec.tokens.end(), {"<|a", "<|a|>", "a|>|>"});
  spec.types.insert(spec.types.end(), 3, TokenType::kControl);
  const auto tokenizer = MakeTokenizer(spec);
  EXPECT_THAT(EncodeTexts(*tokenizer, "<|a|>|>", kParse), ElementsAre("<|a|>", "|", ">"));
  EXPECT_THAT(EncodeTexts(*tokenizer, "<|a|", kParse), ElementsAre("<|a", "|"));
}

// A file that calls chat structure text would let users write it.
TEST(SpecialTokensTest, ChatMarkersAreControlWhateverTheFileSays) {
  TokenizerSpec spec = TinyByteLevelSpec();
  for (TokenType& type : spec.types) {
    if (type == TokenType::kControl) type = TokenType::kUserDefined;
  }
  const auto tokenizer = MakeTokenizer(spec);
  const int32_t marker = tokenizer->FindToken("<|im_end|>");
  EXPECT_TRUE(tokenizer->IsSpecial(marker));
  EXPECT_THAT(*tokenizer->Encode("<|im_end|>"), testing::Not(testing::Contains(marker)));
  EXPECT_FALSE(tokenizer->IsSpecial(tokenizer->FindToken("<|pad|>")));
}

TEST(SpecialTokensTest, ContentSpansAreTextInsideAParsedPrompt) {
  const auto tokenizer = MakeTokenizer(TinyByteLevelSpec());
  const std::string text = "<|im_start|>x<|im_end|>y<|im_end|>";
  const int64_t begin = static_cast<int64_t>(std::string("<|im_start|>").size());
  const int64_t end = begin + static_cast<int64_t>(std::string("x<|im_end|>y").size());
  const std::vector<ByteSpan> content = {{begin, end}};
  const auto ids = tokenizer->EncodeWithContent(text, content, kParse);
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(ids->front(), tokenizer->bos_id());
  EXPECT_EQ(ids->back(), tokenizer->eos_id());
  EXPECT_EQ(std::count(ids->begin(), ids->end(), tokenizer->eos_id()), 1);
  EXPECT_EQ(tokenizer->Decode(*ids, true), text);
}

// Neither half of a marker may be lent by a message.
TEST(SpecialTokensTest, OneByteOfContentKeepsAMarkerText) {
  const auto tokenizer = MakeTokenizer(TinyByteLevelSpec());
  const std::string text = "<|im_end|>";
  for (int64_t at = 0; at < static_cast<int64_t>(text.size()); ++at) {
    const std::vector<ByteSpan> content = {{at, at + 1}};
    const auto ids = tokenizer->EncodeWithContent(text, content, kParse);
    ASSERT_TRUE(ids.ok());
    EXPECT_GT(ids->size(), 1u) << at;
  }
  const std::vector<ByteSpan> empty_span = {{3, 3}};
  EXPECT_GT(tokenizer->EncodeWithContent(text, empty_span, kParse)->size(), 1u);
}

TEST(SpecialTokensTest, BadContentSpansAreRefused) {
  const auto tokenizer = MakeTokenizer(TinyByteLevelSpec());
  const std::vector<std::vector<ByteSpan>> bad = {
      {{0, 4}}, {{-1, 1}}, {{2, 1}}, {{0, 2}, {1, 3}}, {{2, 3}, {0, 1}}, {{INT64_MAX, INT64_MIN}}};
  for (const auto& spans : bad) {
    EXPECT_EQ(tokenizer->EncodeWithContent("abc", spans, kParse).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(TokenizerTest, BosAndEosAreAddedWhenAskedFor) {
  TokenizerSpec spec = TinyByteLevelSpec();
  const EncodeOptions both = {.add_bos = true, .add_eos = true};
  EXPECT_THAT(EncodeTexts(*MakeTokenizer(spec), "a", both),
              ElementsAre("<|im_start|>", "a", "<|im_end|>"));
  spec.bos_id = -1;
  EXPECT_EQ(MakeTokenizer(spec)->Encode("a", both).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(TokenizerTest, EndOfGenerationIsKnownByIdAndByText) {
  TokenizerSpec spec = TinyByteLevelSpec();
  spec.eos_id = -1;
  spec.eot_id = spec.pad_id;
  const auto tokenizer = MakeTokenizer(spec);
  EXPECT_TRUE(tokenizer->IsEndOfGeneration(tokenizer->FindToken("<|im_end|>")));
  EXPECT_TRUE(tokenizer->IsEndOfGeneration(spec.eot_id));
  EXPECT_FALSE(tokenizer->IsEndOfGeneration(tokenizer->bos_id()));
  EXPECT_EQ(tokenizer->eos_id(), tokenizer->FindToken("<|im_end|>"));
}

TEST(TokenizerTest, IdsOutsideTheVocabularyAreNothing) {
  const auto tokenizer = MakeTokenizer(TinyByteLevelSpec());
  for (const int32_t id : {-1, tokenizer->vocab_size(), INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(tokenizer->TokenBytes(id, true), "");
    EXPECT_EQ(tokenizer->TokenText(id), "");
    EXPECT_FALSE(tokenizer->IsSpecial(id));
    EXPECT_FALSE(tokenizer->IsEndOfGeneration(id));
    EXPECT_EQ(tokenizer->Decode({id, 'a'}, true), "a");
  }
}

TEST(TokenizerTest, TextOverTheLimitIsRefused) {
  const auto tokenizer = MakeTokenizer(TinyByteLevelSpec());
  const std::string text(static_cast<size_t>(Tokenizer::kMaxTextBytes) + 1, ' ');
  EXPECT_EQ(tokenizer->Encode(text).status().code(), absl::StatusCode::kInvalidArgument);
  // Three bytes for each of these.
  const std::string wrong(static_cast<size_t>(Tokenizer::kMaxTextBytes) / 2, '\xFF');
  EXPECT_EQ(tokenizer->Encode(wrong).status().code(), absl::StatusCode::kInvalidArgument);
}

// Quadratic merging would take minutes here.
TEST(TokenizerTest, AMebibyteOfOneLetterIsOneWordAndStillQuick) {
  const std::string text(size_t{1} << 20, 'l');
  EXPECT_EQ(MakeTokenizer(TinyByteLevelSpec())->Encode(text)->size(), text.size() / 2);
  // "_" before it makes "_", "ll", ...
  EXPECT_EQ(MakeTokenizer(TinySentencePieceSpec())->Encode(text)->size(), text.size() / 2 + 1);
}

TEST(TokenizerTest, ThreadsShareOne) {
  const auto tokenizer = MakeTokenizer(TinyByteLevelSpec());
  const std::vector<int32_t> expected = *tokenizer->Encode("hello world<tool>");
  std::vector<std::vector<int32_t>> results(4);
  std::vector<std::thread> threads;
  for (auto& result : results) {
    threads.emplace_back([&] { result = *tokenizer->Encode("hello world<tool>"); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result, expected);
}

TEST(SentencePieceTest, MergesByScoreWithASpaceBeforeTheText) {
  const auto tokenizer = MakeTokenizer(TinySentencePieceSpec());
  EXPECT_THAT(EncodeTexts(*tokenizer, "hello wo"), ElementsAre("▁hello", "▁w", "o"));
  EXPECT_THAT(EncodeTexts(*tokenizer, " hello"), ElementsAre("▁", "▁hello"));
  EXPECT_THAT(EncodeTexts(*tokenizer, "lll"), ElementsAre("▁", "ll", "l"));
  EXPECT_THAT(EncodeTexts(*tokenizer, ""), IsEmpty());
}

TEST(SentencePieceTest, WithoutThePrefixTextBeginsAsItIs) {
  TokenizerSpec spec = TinySentencePieceSpec();
  spec.add_space_prefix = false;
  const auto tokenizer = MakeTokenizer(spec);
  EXPECT_THAT(EncodeTexts(*tokenizer, "hello"), ElementsAre("hello"));
  EXPECT_EQ(tokenizer->Decode(*tokenizer->Encode(" hello"), false), " hello");
}

TEST(SentencePieceTest, UnknownCharactersBecomeBytes) {
  const auto tokenizer = MakeTokenizer(TinySentencePieceSpec());
  EXPECT_THAT(EncodeTexts(*tokenizer, "é\n"), ElementsAre("▁", "<0xC3>", "<0xA9>", "<0x0A>"));
  EXPECT_EQ(tokenizer->Decode(*tokenizer->Encode("é\n"), false), "é\n");
}

TEST(SentencePieceTest, WithoutByteTokensARunOfUnknownsIsOneUnknown) {
  TokenizerSpec spec = TinySentencePieceSpec();
  for (TokenType& type : spec.types) {
    if (type == TokenType::kByte) type = TokenType::kUnused;
  }
  EXPECT_THAT(EncodeTexts(*MakeTokenizer(spec), "aéöb"), ElementsAre("▁", "a", "<unk>", "b"));
}

// Text may not be cut at spaces when a token has one inside.
TEST(SentencePieceTest, TokensMayCrossSpaces) {
  TokenizerSpec spec = TinySentencePieceSpec();
  for (const char* token : {"o▁", "o▁w"}) {
    spec.tokens.push_back(token);
    spec.types.push_back(TokenType::kNormal);
    spec.scores.push_back(0);
  }
  EXPECT_THAT(EncodeTexts(*MakeTokenizer(spec), "xo w"), ElementsAre("▁", "x", "o▁w"));
}

// A character that is no token by itself may still be part of one.
TEST(SentencePieceTest, MergesBeginWithCharactersThatAreNoTokens) {
  TokenizerSpec spec = TinySentencePieceSpec();
  spec.tokens.push_back("éö");
  spec.types.push_back(TokenType::kNormal);
  spec.scores.push_back(0);
  EXPECT_THAT(EncodeTexts(*MakeTokenizer(spec), "éö"), ElementsAre("▁", "éö"));
}

TEST(SentencePieceTest, TheSpaceBeforeATextIsNoPartOfIt) {
  const auto tokenizer = MakeTokenizer(TinySentencePieceSpec());
  const std::vector<int32_t> ids = *tokenizer->Encode("hello  w", {.add_bos = true});
  EXPECT_EQ(tokenizer->Decode(ids, false), "hello  w");
  EXPECT_EQ(tokenizer->Decode(ids, false, DecodeStart::kContinuation), " hello  w");
  // As Hugging Face: a rendered special token is the start of the text.
  EXPECT_EQ(tokenizer->Decode(ids, true), "<s> hello  w");
}

TEST(SentencePieceTest, EveryPartBetweenSpecialTokensIsATextOfItsOwn) {
  const auto tokenizer = MakeTokenizer(TinySentencePieceSpec());
  EXPECT_THAT(EncodeTexts(*tokenizer, "<s>hello</s>hello", kParse),
              ElementsAre("<s>", "▁hello", "</s>", "▁hello"));
}

}  // namespace
}  // namespace tandem
