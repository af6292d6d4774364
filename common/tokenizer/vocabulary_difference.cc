#include "common/tokenizer/vocabulary_difference.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tandem {
namespace {

constexpr size_t kMaxShown = 5;
constexpr char kRemedy[] = ": choose a draft of the same vocabulary, or serve without one";

// Ids from `begin` on that are more than padding.
int32_t CountExtra(const Tokenizer& tokenizer, int32_t begin) {
  return std::max(0, tokenizer.used_vocab_size() - begin);
}

}  // namespace

std::string VocabularyDifference::ToString() const {
  if (empty()) return "vocabularies match";
  std::vector<std::string> parts;
  if (!renamed_special_ids.empty()) {
    const size_t count = renamed_special_ids.size();
    const auto end = renamed_special_ids.begin() + std::min(count, kMaxShown);
    parts.push_back(absl::StrCat(count, " special tokens are named differently and never drafted (",
                                 absl::StrJoin(renamed_special_ids.begin(), end, ", "),
                                 count > kMaxShown ? ", ..." : "", ")"));
  }
  if (num_only_in_target > 0) {
    parts.push_back(absl::StrCat(num_only_in_target, " only in the target"));
  }
  if (num_only_in_draft > 0) parts.push_back(absl::StrCat(num_only_in_draft, " only in the draft"));
  return absl::StrCat("vocabularies match but for: ", absl::StrJoin(parts, "; "));
}

absl::StatusOr<VocabularyDifference> CompareVocabularies(const Tokenizer& target,
                                                         const Tokenizer& draft) {
  const int32_t shared = std::min(target.vocab_size(), draft.vocab_size());
  VocabularyDifference difference;
  std::vector<int32_t> differing;
  for (int32_t id = 0; id < shared; ++id) {
    if (target.TokenText(id) == draft.TokenText(id)) continue;
    const bool is_special = target.IsSpecial(id) && draft.IsSpecial(id);
    (is_special ? difference.renamed_special_ids : differing).push_back(id);
  }
  if (!differing.empty()) {
    std::vector<std::string> shown;
    for (size_t i = 0; i < std::min(differing.size(), kMaxShown); ++i) {
      const int32_t id = differing[i];
      shown.push_back(absl::StrCat(id, " ('", std::string(target.TokenText(id)), "', '",
                                   std::string(draft.TokenText(id)), "')"));
    }
    return absl::InvalidArgumentError(absl::StrCat(
        differing.size(), " of ", shared, " tokens differ between target and draft: ",
        absl::StrJoin(shown, ", "), differing.size() > kMaxShown ? ", ..." : "", kRemedy));
  }
  difference.num_only_in_target = CountExtra(target, shared);
  difference.num_only_in_draft = CountExtra(draft, shared);
  if (std::max(difference.num_only_in_target, difference.num_only_in_draft) > kMaxExtraTokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the target's vocabulary has ", target.used_vocab_size(), " tokens, the draft's ",
        draft.used_vocab_size(), ", more than ", kMaxExtraTokens, " apart", kRemedy));
  }
  return difference;
}

}  // namespace tandem
