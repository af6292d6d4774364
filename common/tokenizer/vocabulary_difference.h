// Whether a draft and a target mean the same by a token id.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/tokenizer/tokenizer.h"

namespace tandem {

// How two vocabularies differ where that does no harm.
struct VocabularyDifference {
  // Special in both, spelled differently, as between versions of a family: a draft means
  // something else by them. Rising.
  std::vector<int32_t> renamed_special_ids;
  // Ids that one of them alone has, padding (UNUSED) aside. At most kMaxExtraTokens.
  int32_t num_only_in_target = 0;
  int32_t num_only_in_draft = 0;

  bool empty() const {
    return renamed_special_ids.empty() && num_only_in_target == 0 && num_only_in_draft == 0;
  }
  // In one line, with the first ids.
  std::string ToString() const;
};

// Files of one family end in different numbers of added tokens; more is another family.
inline constexpr int32_t kMaxExtraTokens = 1024;

// INVALID_ARGUMENT when a draft of the one vocabulary proposes nonsense to a target of the
// other: says how many tokens differ, and which are the first.
absl::StatusOr<VocabularyDifference> CompareVocabularies(const Tokenizer& target,
                                                         const Tokenizer& draft);

}  // namespace tandem
