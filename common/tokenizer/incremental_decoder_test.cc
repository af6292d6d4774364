#include "common/tokenizer/incremental_decoder.h"

#include <gtest/gtest.h>

#include <random>

#include "common/tokenizer/tiny_vocabulary.h"
#include "common/tokenizer/utf8.h"

namespace tandem {
namespace {

// Byte tokens of `bytes`: in the tiny byte-level vocabulary ids are bytes.
std::vector<int32_t> ByteIds(std::string_view bytes) {
  std::vector<int32_t> ids;
  for (const char byte : bytes) ids.push_back(static_cast<uint8_t>(byte));
  return ids;
}

TEST(IncrementalDecoderTest, HoldsACharacterBackUntilItIsWhole) {
  const auto tokenizer = MakeTokenizer(TinyByteLevelSpec());
  IncrementalDecoder decoder(tokenizer.get());
  EXPECT_EQ(decoder.Append('a'), "a");
  EXPECT_EQ(decoder.Append(0xF0), "");
  EXPECT_EQ(decoder.Append(0x9F), "");
  EXPECT_EQ(decoder.Append(0xA6), "");
  EXPECT_EQ(decoder.pending().size(), 3u);
  EXPECT_EQ(decoder.Append(0x99), "\U0001F999");
  EXPECT_EQ(decoder.Flush(), "");
}

TEST(IncrementalDecoderTest, ReplacesASequenceAsSoonAsItIsProvenWrong) {
  const auto tokenizer = MakeTokenizer(TinyByteLevelSpec());
  IncrementalDecoder decoder(tokenizer.get());
  EXPECT_EQ(decoder.Append(0xF0), "");
  EXPECT_EQ(decoder.Append('a'), "\uFFFDa");
  EXPECT_EQ(decoder.Append(0xFF), "\uFFFD");
  EXPECT_EQ(decoder.Append(0xE2), "");
  EXPECT_EQ(decoder.Append(0xE2), "\uFFFD");
  EXPECT_EQ(decoder.Flush(), "\uFFFD");
  EXPECT_EQ(decoder.Append('b'), "b");
}

TEST(IncrementalDecoderTest, SpecialTokensAndUnknownIdsDoNotBreakACharacter) {
  const auto tokenizer = MakeTokenizer(TinyByteLevelSpec());
  IncrementalDecoder decoder(tokenizer.get());
  EXPECT_EQ(decoder.Append(0xC3), "");
  EXPECT_EQ(decoder.Append(tokenizer->eos_id()), "");
  EXPECT_EQ(decoder.Append(1 << 20), "");
  EXPECT_EQ(decoder.Append(0xA9), "é");
  IncrementalDecoder rendering(tokenizer.get(), {.render_special = true});
  EXPECT_EQ(rendering.Append(0xC3), "");
  EXPECT_EQ(rendering.Append(tokenizer->eos_id()), "\uFFFD<|im_end|>");
}

TEST(IncrementalDecoderTest, DropsTheSpaceBeforeATextButNotInsideOne) {
  const auto tokenizer = MakeTokenizer(TinySentencePieceSpec());
  const int32_t hello = tokenizer->FindToken("▁hello");
  IncrementalDecoder decoder(tokenizer.get());
  EXPECT_EQ(decoder.Append(tokenizer->bos_id()), "");
  EXPECT_EQ(decoder.Append(hello), "hello");
  EXPECT_EQ(decoder.Append(hello), " hello");
  IncrementalDecoder continuing(tokenizer.get(), {.start = DecodeStart::kContinuation});
  EXPECT_EQ(continuing.Append(hello), " hello");
  IncrementalDecoder spaces(tokenizer.get());
  EXPECT_EQ(spaces.Append(tokenizer->FindToken("▁")), "");
  EXPECT_EQ(spaces.Append(hello), " hello");
}

// Every way to cut every short sequence of these bytes, which are one of each kind that
// UTF-8 tells apart.
TEST(IncrementalDecoderTest, AllShortByteSequencesEqualTheWhole) {
  const auto tokenizer = MakeTokenizer(TinyByteLevelSpec());
  const std::string kinds = "a\x80\x8F\x90\x9F\xA0\xBF\xC0\xC3\xE0\xE2\xED\xF0\xF3\xF4\xF5";
  for (int number = 0; number < 16 * 16 * 16 * 16; ++number) {
    std::string bytes;
    for (int shift = 0; shift < 16; shift += 4) {
      bytes.push_back(kinds[static_cast<size_t>((number >> shift) & 15)]);
    }
    IncrementalDecoder decoder(tokenizer.get());
    std::string text;
    for (const int32_t id : ByteIds(bytes)) text += decoder.Append(id);
    ASSERT_EQ(text + decoder.Flush(), ReplaceInvalidUtf8(bytes));
  }
}

TEST(IncrementalDecoderTest, RandomTokensEqualTheWhole) {
  std::mt19937 random(1);
  for (const TokenizerSpec& spec : {TinyByteLevelSpec(), TinySentencePieceSpec()}) {
    const auto tokenizer = MakeTokenizer(spec);
    std::uniform_int_distribution<int32_t> any_id(-1, tokenizer->vocab_size());
    std::uniform_int_distribution<int32_t> lead_byte(0xC0 + 3, 0xFF + 3);
    for (int round = 0; round < 4000; ++round) {
      std::vector<int32_t> ids;
      for (int i = 0; i < 12; ++i) ids.push_back(i % 3 == 0 ? lead_byte(random) : any_id(random));
      const bool render_special = round % 2 == 0;
      const auto start = round % 3 == 0 ? DecodeStart::kContinuation : DecodeStart::kText;
      IncrementalDecoder decoder(tokenizer.get(),
                                 {.render_special = render_special, .start = start});
      std::string text;
      for (const int32_t id : ids) {
        const std::string delta = decoder.Append(id);
        ASSERT_TRUE(IsValidUtf8(delta));
        ASSERT_LE(decoder.pending().size(), 3u);
        text += delta;
      }
      text += decoder.Flush();
      ASSERT_EQ(text, ReplaceInvalidUtf8(tokenizer->Decode(ids, render_special, start)));
    }
  }
}

}  // namespace
}  // namespace tandem
