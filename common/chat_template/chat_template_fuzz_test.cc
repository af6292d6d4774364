// Seeded mutations of real templates and snippets: whatever the source, it is refused, fails
// or renders within the limits.
#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "common/chat_template/chat_template.h"
#include "common/chat_template/limits.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tandem {
namespace {

std::vector<std::string> Sources() {
  std::vector<std::string> sources;
  for (const auto& entry : std::filesystem::directory_iterator(TANDEM_CHAT_TEMPLATE_TESTDATA)) {
    std::ifstream file(entry.path(), std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    if (entry.path().extension() == ".jinja") {
      sources.push_back(text.str());
    } else if (entry.path().filename() == "language.json") {
      for (const auto& snippet : nlohmann::json::parse(text.str())) {
        sources.push_back(snippet["source"].get<std::string>());
      }
    }
  }
  std::sort(sources.begin(), sources.end());  // folders are listed in any order
  return sources;
}

void Mutate(std::string& source, const std::vector<std::string>& sources, std::mt19937_64& random) {
  constexpr std::array<std::string_view, 24> kPieces = {
      "{{", "}}", "{%", "%}", "{#",   "#}",   "-",    "+",  "(",    ")",   "[",           "]",
      "'",  "\\", "|",  "~",  " is ", " in ", " if ", "\n", "\xff", "1e9", "99999999999", "**"};
  const size_t at = random() % (source.size() + 1);
  switch (random() % 4) {
    case 0:
      source.erase(at, random() % 8 + 1);
      return;
    case 1:
      source.insert(at, kPieces[random() % kPieces.size()]);
      return;
    case 2:
      source.insert(at, source.substr(random() % (source.size() + 1), random() % 32));
      return;
    default: {
      const std::string& other = sources[random() % sources.size()];
      source.insert(at, other.substr(random() % (other.size() + 1), random() % 64));
    }
  }
}

TEST(ChatTemplateFuzzTest, SeededMutationsStayWithinTheLimits) {
  const std::vector<std::string> sources = Sources();
  ASSERT_GT(sources.size(), 400U);
  const std::vector<ChatMessage> messages = {
      {"system", "Be kind."}, {"user", " One \xff"}, {"assistant", "Two <|eot|>"}, {"user", ""}};
  std::mt19937_64 random(20240607);
  int num_rendered = 0;
  for (int i = 0; i < 8000; ++i) {
    std::string source = sources[random() % sources.size()];
    for (uint64_t left = random() % 3 + 1; left > 0; --left) {
      Mutate(source, sources, random);
    }
    const auto parsed = ChatTemplate::Parse(source);
    if (!parsed.ok()) {
      ASSERT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << source;
      continue;
    }
    const auto prompt = parsed->Render({.messages = messages, .bos_token = "<s>"});
    if (!prompt.ok()) {
      ASSERT_EQ(prompt.status().code(), absl::StatusCode::kFailedPrecondition) << source;
      continue;
    }
    ++num_rendered;
    ASSERT_LE(static_cast<int64_t>(prompt->text.size()), jinja::kMaxOutputBytes);
    for (const ContentSpan& span : prompt->content_spans) {
      ASSERT_LE(span.end, static_cast<int64_t>(prompt->text.size()));
    }
  }
  EXPECT_GT(num_rendered, 1000) << "mutations are too wild to test rendering";
}

}  // namespace
}  // namespace tandem
