// Templates and snippets of template language against what Python's jinja2 made of them
// (tools/make_chat_template_golden.py).
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "common/chat_template/chat_template.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tandem {
namespace {

using nlohmann::json;

constexpr char kTestdata[] = TANDEM_CHAT_TEMPLATE_TESTDATA "/";
// What no template prints, so that it shows where content came out.
constexpr std::string_view kMarker = "\xc2\xa4";

std::string ReadFile(const std::string& name) {
  std::ifstream file(kTestdata + name, std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<ChatMessage> Messages(const json& conversation) {
  std::vector<ChatMessage> messages;
  for (const json& message : conversation) {
    messages.push_back({message[0].get<std::string>(), message[1].get<std::string>()});
  }
  return messages;
}

class ChatTemplateGoldenTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { setenv("TZ", "UTC", /*overwrite=*/1); }
  ChatTemplateGoldenTest() : golden_(json::parse(ReadFile("conversations.json"))) {}

  absl::Time Now() const { return absl::FromUnixSeconds(golden_["now"].get<int64_t>()); }

  json golden_;
};

// Every marker lies in a span, and spans hold nothing but content.
void ExpectSpansCoverContent(const RenderedPrompt& prompt,
                             const std::vector<ChatMessage>& messages) {
  int64_t last_end = -1;
  std::string outside;
  int64_t at = 0;
  for (const ContentSpan& span : prompt.content_spans) {
    EXPECT_GT(span.begin, last_end) << "spans ascend and do not touch";
    EXPECT_LT(span.begin, span.end);
    last_end = span.end;
    outside += prompt.text.substr(at, span.begin - at);
    at = span.end;
    const std::string inside = prompt.text.substr(span.begin, span.end - span.begin);
    bool found = false;
    for (const ChatMessage& message : messages) {
      found = found || message.content.find(inside) != std::string::npos ||
              json(message.content).dump().find(inside) != std::string::npos;
    }
    EXPECT_TRUE(found) << "'" << inside << "' is in no message";
  }
  ASSERT_LE(at, static_cast<int64_t>(prompt.text.size()));
  outside += prompt.text.substr(at);
  EXPECT_EQ(outside.find(kMarker), std::string::npos) << outside;
}

TEST_F(ChatTemplateGoldenTest, PublishedTemplatesRenderAsInPython) {
  ASSERT_GT(golden_["cases"].size(), 500U);
  std::map<std::string, ChatTemplate> templates;
  for (const json& golden : golden_["cases"]) {
    const auto name = golden["template"].get<std::string>();
    const auto conversation = golden["conversation"].get<std::string>();
    SCOPED_TRACE(name + " / " + conversation);
    if (!templates.contains(name)) {
      auto parsed = ChatTemplate::Parse(ReadFile(name + ".jinja"));
      ASSERT_TRUE(parsed.ok()) << parsed.status();
      templates.emplace(name, *std::move(parsed));
    }
    const std::vector<ChatMessage> messages = Messages(golden_["conversations"][conversation]);
    const auto prompt = templates.at(name).Render({
        .messages = messages,
        .add_generation_prompt = golden["add_generation_prompt"].get<bool>(),
        .bos_token = golden["bos_token"].get<std::string>(),
        .eos_token = golden["eos_token"].get<std::string>(),
        .now = Now(),
    });
    if (golden["text"].is_null()) {
      EXPECT_EQ(prompt.status().code(), absl::StatusCode::kFailedPrecondition);
      continue;
    }
    ASSERT_TRUE(prompt.ok()) << prompt.status();
    EXPECT_EQ(prompt->text, golden["text"].get<std::string>());
    ExpectSpansCoverContent(*prompt, messages);
  }
}

TEST_F(ChatTemplateGoldenTest, TheLanguageIsPythons) {
  const json language = json::parse(ReadFile("language.json"));
  ASSERT_GT(language.size(), 400U);
  const std::vector<ChatMessage> messages = Messages(golden_["conversations"]["system and turns"]);
  for (const json& golden : language) {
    const auto source = golden["source"].get<std::string>();
    SCOPED_TRACE(source);
    const auto parsed = ChatTemplate::Parse(source);
    const RenderInput input = {.messages = messages,
                               .add_generation_prompt = true,
                               .bos_token = "<s>",
                               .eos_token = "</s>",
                               .now = Now()};
    const auto prompt =
        parsed.ok() ? parsed->Render(input) : absl::StatusOr<RenderedPrompt>(parsed.status());
    if (golden["text"].is_null()) {
      EXPECT_FALSE(prompt.ok()) << prompt->text;
      continue;
    }
    ASSERT_TRUE(prompt.ok()) << prompt.status();
    EXPECT_EQ(prompt->text, golden["text"].get<std::string>());
  }
}

}  // namespace
}  // namespace tandem
