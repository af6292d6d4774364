#include "services/gateway/engine/output_assembler.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "common/tokenizer/utf8.h"
#include "gtest/gtest.h"
#include "services/gateway/engine/engine_sim.h"

namespace tandem::gateway {
namespace {

struct Result {
  std::string text;
  std::vector<int32_t> ids;
  std::vector<std::string> deltas;
  std::optional<OutputAssembler::End> end;
};

// Feeds tokens, taking deltas every `step` tokens as a round does.
Result Feed(const std::vector<int32_t>& ids, const StoppingParams& stopping, size_t step = 1,
            int32_t max_tokens = 1000) {
  OutputAssembler output(&SimTokenizer(), stopping, max_tokens, FinishReason::kMaxTokens);
  Result result;
  for (size_t i = 0; i < ids.size() && !result.end; ++i) {
    result.end = output.Append(ids[i], nullptr);
    if (!result.end && (i + 1) % step != 0) continue;
    if (!output.has_delta()) continue;
    const TokenDelta delta = output.TakeDelta();
    EXPECT_TRUE(IsValidUtf8(delta.text));
    result.text += delta.text;
    result.deltas.push_back(delta.text);
    result.ids.insert(result.ids.end(), delta.token_ids.begin(), delta.token_ids.end());
  }
  EXPECT_EQ(output.num_tokens() >= static_cast<int32_t>(result.ids.size()), true);
  return result;
}

std::vector<int32_t> Bytes(const std::string& text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(static_cast<uint8_t>(c));
  return ids;
}

TEST(OutputAssemblerTest, HoldsBackWhatMayBecomeAStopString) {
  const Result result = Feed(Bytes("one END two"), {.stop = {"END"}});
  EXPECT_EQ(result.text, "one ");
  EXPECT_EQ(result.deltas, (std::vector<std::string>{"o", "n", "e", " "}));
  ASSERT_TRUE(result.end.has_value());
  EXPECT_EQ(result.end->reason, FinishReason::kStopString);
  EXPECT_EQ(result.end->stop, "END");
  EXPECT_EQ(result.ids, Bytes("one "));
}

TEST(OutputAssemblerTest, LetsGoWhatTurnsOutNotToBeOne) {
  const Result result = Feed(Bytes("EENDx ENEND."), {.stop = {"ENDy", "ENX"}});
  EXPECT_EQ(result.text, "EENDx ENEND.");
  EXPECT_FALSE(result.end.has_value());
}

TEST(OutputAssemblerTest, KeepsTheStopStringWhenAsked) {
  EXPECT_EQ(Feed(Bytes("one END two"), {.stop = {"END"}, .include_stop = true}).text, "one END");
}

TEST(OutputAssemblerTest, FindsAStopInsideAndAcrossTokens) {
  const Tokenizer& tokenizer = SimTokenizer();
  const std::vector<int32_t> ids = {tokenizer.FindToken("hello"), tokenizer.FindToken("hello")};
  const Result inside = Feed(ids, {.stop = {"ell"}});
  EXPECT_EQ(inside.text, "h");
  EXPECT_EQ(inside.ids.size(), 1u);  // the token it begins in
  const Result across = Feed(ids, {.stop = {"lohe"}});
  EXPECT_EQ(across.text, "hel");
  EXPECT_EQ(across.ids.size(), 1u);
}

TEST(OutputAssemblerTest, FindsAStopOfSplitCharacters) {
  const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z";
  for (size_t step = 1; step <= text.size(); ++step) {
    const Result result = Feed(Bytes(text), {.stop = {"\xE2\x82\xAC\xF0\x9F\x98\x80"}}, step);
    EXPECT_EQ(result.text, "a\xC3\xA9");
  }
}

TEST(OutputAssemblerTest, TheStopThatIsCompleteFirstEndsIt) {
  EXPECT_EQ(Feed(Bytes("abcd"), {.stop = {"bcd", "c"}}).text, "ab");
  EXPECT_EQ(Feed(Bytes("abcd"), {.stop = {"c", "bc"}}).text, "a");  // both: the longer
}

TEST(OutputAssemblerTest, StopTokensEndItWithoutBeingPartOfIt) {
  const int32_t eos = SimTokenizer().eos_id();
  Result result = Feed({'h', 'i', eos, 'x'}, {});
  EXPECT_EQ(result.text, "hi");
  EXPECT_EQ(result.end->reason, FinishReason::kStopToken);
  EXPECT_EQ(result.end->stop_token_id, eos);
  EXPECT_EQ(result.ids.size(), 2u);
  result = Feed({'h', eos, 'i', '!'}, {.stop_token_ids = {'!'}, .ignore_eos = true});
  EXPECT_EQ(result.text, "hi");
  EXPECT_EQ(result.end->stop_token_id, '!');
  EXPECT_EQ(result.ids.size(), 3u);
}

TEST(OutputAssemblerTest, TheEndReleasesWhatWasHeldBack) {
  EXPECT_EQ(Feed(Bytes("xEN"), {.stop = {"END"}}, 1, 3).text, "xEN");
  std::vector<int32_t> ids = Bytes("xEN");
  ids.push_back(SimTokenizer().eos_id());
  EXPECT_EQ(Feed(ids, {.stop = {"END"}}).text, "xEN");
  EXPECT_EQ(Feed(Bytes("x\xE2\x82"), {}, 1, 3).text, "x\xEF\xBF\xBD");
}

// Whatever the tokens, steps and stops: the text up to the first stop, nothing less.
TEST(OutputAssemblerTest, RandomTextIsCutExactlyWhateverTheSteps) {
  std::mt19937 random(1);
  for (int32_t trial = 0; trial < 2000; ++trial) {
    std::string text;
    for (int32_t i = 0; i < 40; ++i) text += "ab\xC3\xA9"[random() % 4];
    StoppingParams stopping;
    for (uint32_t i = random() % 4; i > 0; --i) {
      std::string stop;
      for (uint32_t j = 1 + random() % 5; j > 0; --j) {
        stop += random() % 3 == 0 ? std::string("\xC3\xA9") : std::string(1, "ab"[random() % 2]);
      }
      stopping.stop.push_back(stop);
    }
    const Result by_one = Feed(Bytes(text), stopping, 1, 40);
    const Result by_some = Feed(Bytes(text), stopping, 1 + random() % 16, 40);
    ASSERT_EQ(by_one.text, by_some.text);
    ASSERT_EQ(by_one.ids, by_some.ids);
    const std::string whole = ReplaceInvalidUtf8(text);
    ASSERT_EQ(whole.substr(0, by_one.text.size()), by_one.text);
    for (const std::string& stop : stopping.stop) {
      ASSERT_EQ(by_one.text.find(stop), std::string::npos);
    }
    if (!by_one.end || by_one.end->reason != FinishReason::kStopString) {
      ASSERT_EQ(by_one.text, whole);
    } else {
      ASSERT_EQ(whole.substr(by_one.text.size(), by_one.end->stop.size()), by_one.end->stop);
    }
  }
}

TEST(OutputAssemblerTest, LogprobsTravelWithTheirTokens) {
  OutputAssembler output(&SimTokenizer(), {.stop = {"ab"}}, 10, FinishReason::kMaxTokens);
  const TokenLogprob first{.logprob = -1.0f, .top = {}};
  const TokenLogprob second{.logprob = -2.0f, .top = {}};
  EXPECT_FALSE(output.Append('a', &first).has_value());
  EXPECT_FALSE(output.has_delta());
  EXPECT_FALSE(output.Append('c', &second).has_value());
  const TokenDelta delta = output.TakeDelta();
  ASSERT_EQ(delta.logprobs.size(), 2u);
  EXPECT_EQ(delta.logprobs[0].logprob, -1.0f);
  EXPECT_EQ(delta.logprobs[1].logprob, -2.0f);
}

}  // namespace
}  // namespace tandem::gateway
