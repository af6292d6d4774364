#include "common/tokenizer/vocabulary_difference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/tokenizer/tiny_vocabulary.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::StatusOr<VocabularyDifference> Compare(const TokenizerSpec& target,
                                             const TokenizerSpec& draft) {
  return CompareVocabularies(*MakeTokenizer(target), *MakeTokenizer(draft));
}

void AddTokens(TokenizerSpec* spec, int32_t count, TokenType type) {
  for (int32_t i = 0; i < count; ++i) {
    spec->tokens.push_back(absl::StrCat("<extra", i, ">"));
    spec->types.push_back(type);
  }
}

TEST(VocabularyDifferenceTest, TheSameVocabularyDoesNotDiffer) {
  const auto difference = Compare(TinyByteLevelSpec(), TinyByteLevelSpec());
  ASSERT_TRUE(difference.ok()) << difference.status();
  EXPECT_TRUE(difference->empty());
  EXPECT_EQ(difference->ToString(), "vocabularies match");
}

// As <|reserved_special_token_0|> of Llama 3.0 is <|finetune_right_pad_id|> in 3.1.
TEST(VocabularyDifferenceTest, RenamedSpecialTokensAreTolerated) {
  TokenizerSpec draft = TinyByteLevelSpec();
  const int32_t pad = draft.pad_id;
  draft.tokens[pad] = "<|reserved|>";
  const auto difference = Compare(TinyByteLevelSpec(), draft);
  ASSERT_TRUE(difference.ok()) << difference.status();
  EXPECT_THAT(difference->renamed_special_ids, ElementsAre(pad));
  EXPECT_THAT(difference->ToString(), HasSubstr(absl::StrCat("never drafted (", pad, ")")));
}

TEST(VocabularyDifferenceTest, OtherTextIsRefusedWithTheIds) {
  TokenizerSpec draft = TinyByteLevelSpec();
  draft.tokens[256 + 1] = "zz";
  std::swap(draft.merges[1], draft.merges.back());
  draft.merges.resize(1);
  const auto difference = Compare(TinyByteLevelSpec(), draft);
  EXPECT_TRUE(absl::IsInvalidArgument(difference.status()));
  EXPECT_THAT(std::string(difference.status().message()), HasSubstr("257 ('ll', 'zz')"));
  EXPECT_THAT(std::string(difference.status().message()), HasSubstr("1 of "));
}

// Padding, however much, changes nothing; a few added tokens are harmless, many are not.
TEST(VocabularyDifferenceTest, PaddingIsNoDifferenceAndAFewMoreTokensAreTolerated) {
  TokenizerSpec padded = TinyByteLevelSpec();
  AddTokens(&padded, 3 * kMaxExtraTokens, TokenType::kUnused);
  const auto padding = Compare(padded, TinyByteLevelSpec());
  ASSERT_TRUE(padding.ok()) << padding.status();
  EXPECT_TRUE(padding->empty());

  TokenizerSpec extended = TinyByteLevelSpec();
  AddTokens(&extended, 2, TokenType::kControl);
  const auto more = Compare(TinyByteLevelSpec(), extended);
  ASSERT_TRUE(more.ok()) << more.status();
  EXPECT_EQ(more->num_only_in_draft, 2);
  EXPECT_EQ(more->num_only_in_target, 0);

  TokenizerSpec other = TinyByteLevelSpec();
  AddTokens(&other, kMaxExtraTokens + 1, TokenType::kControl);
  EXPECT_TRUE(absl::IsInvalidArgument(Compare(TinyByteLevelSpec(), other).status()));
}

}  // namespace
}  // namespace tandem
