#include "common/tokenizer/golden_test_support.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "common/base/check.h"
#include "common/gguf/gguf.h"

namespace tandem {
namespace {

// Tests run in the source directory.
constexpr char kTestData[] = "common/tokenizer/testdata/";

std::string Unescaped(std::string_view text) {
  std::string bytes;
  while (!text.empty()) {
    if (text[0] == '\\') {
      bytes.push_back(static_cast<char>(std::stoi(std::string(text.substr(2, 2)), nullptr, 16)));
      text.remove_prefix(4);
    } else {
      bytes.push_back(text[0]);
      text.remove_prefix(1);
    }
  }
  return bytes;
}

}  // namespace

std::string SmolLm2Path() {
  const char* path = std::getenv("TANDEM_TEST_MODEL");
  return path != nullptr ? path : "build/models/smollm2-135m-instruct.q4_1.gguf";
}

std::string SharedDataPath(std::string_view name) {
  const char* folder = std::getenv("TANDEM_SHARED_DATA");
  return std::string(folder != nullptr ? folder : "../shared/data") + "/" + std::string(name);
}

bool FileExists(const std::string& path) { return std::filesystem::is_regular_file(path); }

std::string ReadFileOrDie(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  TANDEM_CHECK(file.good());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TokenizerSpec ReadSpecOrDie(const std::string& path) {
  const auto file = GgufFile::Open(path);
  TANDEM_CHECK(file.ok());
  auto spec = TokenizerSpecFromGguf(**file);
  if (!spec.ok()) std::fprintf(stderr, "%s\n", spec.status().ToString().c_str());
  TANDEM_CHECK(spec.ok());
  return *std::move(spec);
}

std::vector<GoldenLine> ReadGolden(std::string_view name) {
  std::istringstream file(ReadFileOrDie(kTestData + std::string(name)));
  std::vector<GoldenLine> lines;
  for (std::string line; std::getline(file, line);) {
    const size_t tab = line.rfind('\t');
    GoldenLine golden = {
        .special = line[0] == 'p' ? SpecialTokens::kParse : SpecialTokens::kAsText,
        .text = Unescaped(std::string_view(line).substr(2, tab - 2)),
        .ids = {},
    };
    std::istringstream ids(line.substr(tab + 1));
    for (int32_t id; ids >> id;) golden.ids.push_back(id);
    lines.push_back(std::move(golden));
  }
  return lines;
}

std::string Escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    char code[8];
    std::snprintf(code, sizeof(code), "\\x%02x", static_cast<unsigned>(static_cast<uint8_t>(c)));
    escaped.append(c >= 0x20 && c < 0x7F && c != '\\' ? std::string(1, c) : std::string(code));
  }
  return escaped;
}

}  // namespace tandem
