// Where the golden tests find vocabularies and the answers of the reference tokenizers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/tokenizer/tokenizer.h"

namespace tandem {

// The SmolLM2 model: $TANDEM_TEST_MODEL, or where scripts/demo puts it.
std::string SmolLm2Path();

// A file of the shared vocabularies: in $TANDEM_SHARED_DATA, or ../shared/data.
std::string SharedDataPath(std::string_view name);

bool FileExists(const std::string& path);

std::string ReadFileOrDie(const std::string& path);

TokenizerSpec ReadSpecOrDie(const std::string& path);

// One line of a golden file; tools/make_tokenizer_golden.py says how it is written.
struct GoldenLine {
  SpecialTokens special;
  std::string text;
  std::vector<int32_t> ids;
};

// A golden file in testdata/.
std::vector<GoldenLine> ReadGolden(std::string_view name);

// `text` with what is not printable ASCII as \xHH, for messages.
std::string Escaped(std::string_view text);

}  // namespace tandem
