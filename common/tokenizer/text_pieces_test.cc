// The pure parts under the tokenizer: UTF-8, pre-tokenizers, merging.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "common/tokenizer/byte_alphabet.h"
#include "common/tokenizer/merge_table.h"
#include "common/tokenizer/pre_tokenizer.h"
#include "common/tokenizer/tiny_vocabulary.h"
#include "common/tokenizer/utf8.h"

namespace tandem {
namespace {

using testing::ElementsAre;

TEST(Utf8Test, ReplacesWhatPythonReplaces) {
  // bytes.decode("utf-8", errors="replace"), Python 3.11.
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"", ""},
      {"abc", "abc"},
      {"\xFF", "\uFFFD"},
      {"\xC0\xAF", "\uFFFD\uFFFD"},
      {"\xE2\x82", "\uFFFD"},
      {"\xE2\x82"
       "a",
       "\uFFFDa"},
      {"\xE0\x80\xAF", "\uFFFD\uFFFD\uFFFD"},
      {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},
      {"\xF0\x9F\x98", "\uFFFD"},
      {"\xF0\x80\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},
      {"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},
      {"\xF8\x88\x80\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD"},
      {"\xC3\xA9\xC3", "é\uFFFD"},
      {"12345678\x80"
       "12345678",
       "12345678\uFFFD12345678"},
  };
  for (const auto& [bytes, text] : cases) EXPECT_EQ(ReplaceInvalidUtf8(bytes), text);
}

TEST(Utf8Test, EveryCodePointSurvives) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    AppendUtf8(c, &text);
    const Utf8Step step = DecodeUtf8(text);
    ASSERT_EQ(step.state, Utf8Step::State::kValid);
    ASSERT_EQ(step.code_point, c);
    ASSERT_EQ(static_cast<size_t>(step.length), text.size());
    for (size_t cut = 1; cut < text.size(); ++cut) {
      ASSERT_EQ(DecodeUtf8(text.substr(0, cut)).state, Utf8Step::State::kTruncated);
    }
  }
}

TEST(ByteAlphabetTest, SpellsEveryByteOnce) {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes.push_back(static_cast<char>(byte));
  EXPECT_EQ(BytesOfAlphabet(SpelledInAlphabet(bytes)), bytes);
  EXPECT_EQ(SpelledInAlphabet(" \n\xAD"), "ĠĊ\u0143");
  EXPECT_EQ(BytesOfAlphabet("\u0144"), std::nullopt);
  EXPECT_EQ(BytesOfAlphabet(" "), std::nullopt);
}

std::vector<std::string> Pieces(PreTokenizer kind, std::string_view text) {
  std::vector<std::string> pieces;
  while (!text.empty()) {
    const size_t length = FirstPieceLength(kind, text);
    EXPECT_GT(length, 0u);
    EXPECT_LE(length, text.size());
    pieces.emplace_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return pieces;
}

TEST(PreTokenizerTest, Gpt2LeavesOneSpaceToTheNextWord) {
  constexpr auto kKind = PreTokenizer::kGpt2;
  EXPECT_THAT(Pieces(kKind, "I'll  go 42!\n\n x \t"),
              ElementsAre("I", "'ll", " ", " go", " 42", "!", "\n\n", " x", " \t"));
  EXPECT_THAT(Pieces(kKind, "a\tb\u3000c I'LL"),
              ElementsAre("a", "\t", "b", "\u3000", "c", " I", "'", "LL"));
}

TEST(PreTokenizerTest, SmolLmSplitsDigitsFirst) {
  constexpr auto kKind = PreTokenizer::kSmolLm;
  EXPECT_THAT(Pieces(kKind, "a  12٣ b"), ElementsAre("a", "  ", "1", "2", "٣", " b"));
  EXPECT_THAT(Pieces(kKind, "  "), ElementsAre("  "));
}

TEST(PreTokenizerTest, Llama3KeepsNewlinesTogetherAndNumbersShort) {
  constexpr auto kKind = PreTokenizer::kLlama3;
  EXPECT_THAT(
      Pieces(kKind, "I'LL pay $12345!\r\n\n  ok \n \tx"),
      ElementsAre("I", "'LL", " pay", " $", "123", "45", "!\r\n\n", " ", " ok", " \n", " ", "\tx"));
  EXPECT_THAT(Pieces(kKind, "'\u017Fx (a"), ElementsAre("'\u017F", "x", " (", "a"));
}

TEST(PreTokenizerTest, DefaultSplitsPunctuationFirst) {
  constexpr auto kKind = PreTokenizer::kDefault;
  EXPECT_THAT(Pieces(kKind, "it's  1234 a+b"),
              ElementsAre("it", "'", "s", " ", " ", "123", "4", " a", "+", "b"));
}

// What Apply promises, done the slow way.
std::vector<int32_t> MergeSlowly(const std::map<std::pair<int32_t, int32_t>, int32_t>& ranks,
                                 std::vector<int32_t> ids) {
  while (true) {
    size_t best = ids.size();
    int32_t best_rank = INT32_MAX;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto it = ranks.find({ids[i], ids[i + 1]});
      if (it != ranks.end() && it->second < best_rank) {
        best_rank = it->second;
        best = i;
      }
    }
    if (best == ids.size()) return ids;
    ids[best] = 100 * ids[best] + ids[best + 1];
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

TEST(MergeTableTest, JoinsTheLowestRankFirstAndOfEqualsTheLeftmost) {
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    std::map<std::pair<int32_t, int32_t>, int32_t> ranks;
    MergeTable table;
    std::vector<int32_t> known = {1, 2, 3};
    for (int i = 0; i < 8; ++i) {
      const int32_t left = known[random() % known.size()];
      const int32_t right = known[random() % known.size()];
      if (left > 9999 || right > 99) continue;               // ids are written one behind the other
      const auto rank = static_cast<int32_t>(random() % 6);  // ties happen
      if (ranks.try_emplace({left, right}, rank).second) known.push_back(100 * left + right);
      table.Add(left, right, rank, 100 * left + right);
    }
    std::vector<int32_t> ids;
    MergeScratch scratch;
    for (int i = 0; i < 20; ++i) {
      ids.push_back(static_cast<int32_t>(1 + random() % 3));
      scratch.Push(ids.back());
    }
    table.Apply(&scratch);
    std::vector<int32_t> merged;
    scratch.ForEach([&](int32_t id) { merged.push_back(id); });
    ASSERT_EQ(merged, MergeSlowly(ranks, ids));
  }
}

TEST(MergeTableTest, NothingAndOneSymbolStay) {
  MergeTable table;
  table.Add(1, 1, 0, 2);
  MergeScratch scratch;
  int num_symbols = 0;
  const auto count = [&](int32_t) { ++num_symbols; };
  table.Apply(&scratch);
  scratch.ForEach(count);
  EXPECT_EQ(num_symbols, 0);
  scratch.Push(1);
  table.Apply(&scratch);
  scratch.ForEach(count);
  EXPECT_EQ(num_symbols, 1);
}

}  // namespace
}  // namespace tandem
