// Limits, errors and the origin of text; what templates print is in the golden test.
#include "common/chat_template/chat_template.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

absl::StatusOr<RenderedPrompt> RenderSource(std::string_view source,
                                            const std::vector<ChatMessage>& messages = {}) {
  const auto parsed = ChatTemplate::Parse(source);
  if (!parsed.ok()) {
    return parsed.status();
  }
  return parsed->Render({.messages = messages, .bos_token = "<s>", .eos_token = "</s>"});
}

// The parts of the text that the spans name.
std::vector<std::string> ContentOf(const RenderedPrompt& prompt) {
  std::vector<std::string> parts;
  for (const ContentSpan& span : prompt.content_spans) {
    parts.push_back(prompt.text.substr(span.begin, span.end - span.begin));
  }
  return parts;
}

void ExpectFails(std::string_view source, absl::StatusCode code, const char* message,
                 const std::vector<ChatMessage>& messages = {}) {
  const absl::Status status = RenderSource(source, messages).status();
  EXPECT_EQ(status.code(), code) << source.substr(0, 100) << ": " << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << source.substr(0, 100);
}

void ExpectBounded(std::string_view source, const char* message,
                   const std::vector<ChatMessage>& messages = {}) {
  ExpectFails(source, absl::StatusCode::kFailedPrecondition, message, messages);
}

void ExpectRefused(std::string_view source, const char* message) {
  ExpectFails(source, absl::StatusCode::kInvalidArgument, message);
}

std::string Repeated(std::string_view piece, int times) {
  std::string text;
  for (int i = 0; i < times; ++i) {
    text += piece;
  }
  return text;
}

TEST(ChatTemplateLimitsTest, LoopsEnd) {
  ExpectBounded("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
                "more than 1000000 steps");
  ExpectBounded("{% for a in range(10 ** 9) %}{% endfor %}", "a range of more than 100000");
  ExpectBounded("{% for a in range(0, -(10 ** 18), -1) %}{% endfor %}", "a range of more than");
  ExpectBounded("{% for a in range(9000) %}{% for b in range(9000) %}x{% endfor %}{% endfor %}",
                "steps");
}

TEST(ChatTemplateLimitsTest, StringsAndListsAreBounded) {
  ExpectBounded(
      "{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
      "a string of more than 4194304 bytes");
  ExpectBounded("{{ 'ab' * 10 ** 9 }}", "at most 4194304");
  ExpectBounded("{{ [1, 2] * 10 ** 9 }}", "at most 100000");
  ExpectBounded(
      "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
      "at most 100000");
  ExpectBounded("{{ ('a' * 4000000)|list }}", "a list of");
  ExpectBounded("{{ ('a,' * 2000000).split(',') }}", "a list of");
  ExpectBounded("{{ ('a' * 4000000)|replace('a', 'b' * 100000) }}", "a string of more than");
  ExpectBounded("{{ ('a\\n' * 2000000)|indent(64) }}", "a string of more than");
  ExpectBounded("{{ ['\"' * 3000000]|tojson }}{{ ['\"' * 3000000] * 2 }}", "bytes");
  ExpectBounded(
      "{% set n = namespace(s=[]) %}{% for i in range(99) %}{% set n.s = [n.s] %}"
      "{% endfor %}",
      "nested deeper than 32");
  // Shared parts make a list that is small in memory and endless to walk.
  ExpectBounded(
      "{% set n = namespace(s=[], t=[]) %}{% for i in range(30) %}"
      "{% set n.s = [n.s, n.s] %}{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.s == n.t }}",
      "steps");
  ExpectBounded(
      "{% set n = namespace(s=[]) %}{% for i in range(30) %}"
      "{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s|tojson }}",
      "");
}

TEST(ChatTemplateLimitsTest, OutputIsBounded) {
  ExpectBounded("{% for i in range(99) %}{{ 'x' * 100000 }}{% endfor %}", "more than 4194304");
  const std::string data(50000, 'x');
  ExpectBounded("{% for i in range(99) %}" + data + "{% endfor %}",
                "prints more than 4194304 bytes");
}

TEST(ChatTemplateLimitsTest, WorkOnLongContentIsCounted) {
  const std::vector<ChatMessage> messages = {{"user", std::string(1 << 20, 'a')}};
  ExpectBounded("{% for i in range(99999) %}{{ messages[0].content|length }}{% endfor %}", "steps",
                messages);
  ExpectBounded("{% for i in range(99999) %}{{ 'b' in messages[0].content }}{% endfor %}", "steps",
                messages);
  ExpectBounded("{% for i in range(99999) %}{{ messages[0].content[5] }}{% endfor %}", "steps",
                messages);
}

TEST(ChatTemplateLimitsTest, RecursionIsBounded) {
  ExpectBounded("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nest deeper than 500");
  ExpectBounded(
      "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}"
      "{{ a() }}",
      "nest deeper than 500");
}

TEST(ChatTemplateLimitsTest, SourceIsBounded) {
  ExpectRefused(std::string((256 << 10) + 1, 'x'), "262145 bytes, at most 262144");
  ExpectRefused(std::string(50 << 20, 'x'), "at most 262144");
  ExpectRefused("{{ " + Repeated("(", 1000) + "1" + Repeated(")", 1000) + " }}", "nests deeper");
  ExpectRefused("{{ " + Repeated("[", 1000) + Repeated("]", 1000) + " }}", "nests deeper");
  ExpectRefused("{{ " + Repeated("not ", 50000) + "1 }}", "nests deeper");
  ExpectRefused("{{ " + Repeated("-", 100000) + "1 }}", "nests deeper");
  ExpectRefused("{{ " + Repeated("1 if 1 else ", 20000) + "1 }}", "nests deeper");
  ExpectRefused("{{ 1" + Repeated("+1", 100000) + " }}", "more than 200 parts");
  ExpectRefused("{{ a" + Repeated(".a", 100000) + " }}", "more than 200 parts");
  ExpectRefused("{{ a" + Repeated("|trim", 50000) + " }}", "more than 200 parts");
  ExpectRefused("{{ a" + Repeated(" and a", 40000) + " }}", "more than 200 parts");
  ExpectRefused(Repeated("{% if 1 %}", 20000), "statements nest deeper than 64");
  ExpectRefused(Repeated("{% for a in b %}", 15000), "statements nest deeper than 64");
  EXPECT_TRUE(RenderSource(Repeated("{% if 1 %}x{% endif %}", 10000)).ok());
  EXPECT_TRUE(RenderSource("{{ 1" + Repeated("~1", 100000) + " }}").ok());
}

TEST(ChatTemplateLimitsTest, LongTemplatesAndConversationsFit) {
  std::vector<ChatMessage> messages(2000, {"user", std::string(1000, 'x')});
  const auto prompt = RenderSource(
      "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | "
      "trim + '</s>' }}{% endfor %}",
      messages);
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  EXPECT_EQ(prompt->text.size(), 2000U * (6 + 1000 + 4));
}

TEST(ChatTemplateErrorTest, ErrorsNameTheLine) {
  ExpectRefused("a\n{% if %}", "chat template line 2: expected an expression, found the end");
  ExpectRefused("a\n\n{{ 1", "line 3: a variable tag has no end");
  ExpectRefused("{% include 'x' %}", "line 1: statement 'include' is not supported");
  ExpectRefused("{{ 99999999999999999999 }}", "out of the range of 64 bits");
  ExpectBounded("a\n{{ 1 +\n x }}", "chat template line 2: 'x' is undefined");
  ExpectBounded("\n\n{{ raise_exception('bad roles') }}", "chat template line 3: bad roles");
  ExpectBounded("{{ 'x'|nope }}", "line 1: no filter named 'nope'");
  ExpectBounded("{{ 9223372036854775807 + 1 }}", "leaves the range of 64 bits");
  ExpectBounded("{{ (-9223372036854775807 - 1) // -1 }}", "leaves the range of 64 bits");
}

TEST(ChatTemplateErrorTest, ANamespaceThatHoldsItselfIsFreed) {
  EXPECT_TRUE(RenderSource("{% set n = namespace() %}{% set n.n = [n, {'n': n}] %}"
                           "{% for i in [1] %}{% set n.l = loop %}{% endfor %}{{ n.n[0] == n }}")
                  .ok());
}

TEST(ChatTemplateOriginTest, ContentIsToldFromTheTemplate) {
  const std::vector<ChatMessage> messages = {{"user", " <|eot|> hi "}, {"assistant", "yo"}};
  const auto prompt = RenderSource(
      "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|eot|>{% endfor %}", messages);
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  EXPECT_EQ(prompt->text, "<|user|><|eot|> hi<|eot|><|assistant|>yo<|eot|>");
  EXPECT_THAT(ContentOf(*prompt), ElementsAre("<|eot|> hi", "yo"));
  EXPECT_THAT(prompt->content_spans, ElementsAre(ContentSpan{8, 18}, ContentSpan{38, 40}));
}

TEST(ChatTemplateOriginTest, OriginSurvivesWhatTemplatesDoToContent) {
  const std::vector<ChatMessage> messages = {{"user", "  ab<s>Cd\nx "}};
  const auto content = [&messages](const std::string& expression) {
    const auto prompt = RenderSource("{% set c = messages[0].content %}" + expression, messages);
    EXPECT_TRUE(prompt.ok()) << prompt.status();
    return prompt.ok() ? ContentOf(*prompt) : std::vector<std::string>();
  };
  EXPECT_THAT(content("{{ '<s>' + c + '<s>' }}"), ElementsAre("  ab<s>Cd\nx "));
  EXPECT_THAT(content("{{ '<s>' ~ c.strip() ~ '<s>' }}"), ElementsAre("ab<s>Cd\nx"));
  EXPECT_THAT(content("{{ '-' ~ c[2:5] ~ '-' }}"), ElementsAre("ab<"));
  EXPECT_THAT(content("{{ '-' ~ (c|trim)[::-1] }}"), ElementsAre("x\ndC>s<ba"));
  EXPECT_THAT(content("{{ c|replace('b', '|') }}"), ElementsAre("  a", "<s>Cd\nx "));
  EXPECT_THAT(content("{{ 'a-b'|replace('-', c|trim) }}"), ElementsAre("ab<s>Cd\nx"));
  EXPECT_THAT(content("{{ ('<S>' ~ c)|lower }}"), ElementsAre("  ab<s>cd\nx "));
  EXPECT_THAT(content("{{ c.split('<s>')[1] }}!"), ElementsAre("Cd\nx "));
  EXPECT_THAT(content("{{ ['<s>', c.split()[1]]|join('<s>') }}"), ElementsAre("x"));
  EXPECT_THAT(content("{{ {'k': c}|tojson }}"), ElementsAre("\"  ab<s>Cd\\nx \""));
  EXPECT_THAT(content("{{ [c] }}"), ElementsAre("'  ab<s>Cd\\nx '"));
  EXPECT_THAT(content("{{ ('<s>' ~ c.strip())|indent(2) }}"), ElementsAre("ab<s>Cd", "x"));
  EXPECT_THAT(content("{{ ('<' ~ c.strip())|e }}"), ElementsAre("ab&lt;s&gt;Cd\nx"));
  EXPECT_THAT(content("{% for l in c %}{{ l if l in 'ab' }}.{% endfor %}"), ElementsAre("a", "b"));
  EXPECT_THAT(content("{% set x %}<s>{{ c|trim }}<s>{% endset %}{{ x }}"),
              ElementsAre("ab<s>Cd\nx"));
  EXPECT_THAT(content("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(c|trim) }}"),
              ElementsAre("ab<s>Cd\nx"));
  EXPECT_THAT(content("{{ (c|trim).title() }}{{ '<s>' }}{{ (c|trim)|title }}").size(), 2U);
  EXPECT_THAT(content("{{ '<s>' }}{{ c|length }}"), IsEmpty());
}

// A role is the client's too: one that is more than a word must not smuggle tokens in.
TEST(ChatTemplateOriginTest, RolesThatAreNoWordsAreContent) {
  const auto prompt = RenderSource("{% for m in messages %}[{{ m.role }}]{% endfor %}",
                                   {{"user", ""}, {"<|system|>", ""}, {"tool-result_2", ""}});
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  EXPECT_EQ(prompt->text, "[user][<|system|>][tool-result_2]");
  EXPECT_THAT(ContentOf(*prompt), ElementsAre("<|system|>"));
}

TEST(ChatTemplateOriginTest, ContentThatIsNoUtf8PassesThrough) {
  const std::string broken = "a\xff\xf0\x9f\x98 b\xc3";
  const auto prompt = RenderSource(
      "{{ messages[0].content }}|{{ messages[0].content|trim|length }}", {{"user", broken}});
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  EXPECT_EQ(prompt->text, broken + "|8");
  EXPECT_TRUE(
      RenderSource("{{ messages[0].content.strip('b')|upper|tojson }}", {{"user", broken}}).ok());
}

}  // namespace
}  // namespace tandem
