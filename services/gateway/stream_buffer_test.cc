#include "services/gateway/stream_buffer.h"

#include "gtest/gtest.h"

namespace tandem::gateway {
namespace {

TokenDelta Delta(std::string text, std::vector<int32_t> ids) {
  TokenDelta delta{.text = std::move(text), .token_ids = std::move(ids)};
  delta.logprobs.resize(delta.token_ids.size());
  return delta;
}

TEST(StreamBufferTest, EventsComeInOrderAndWaitingDeltasAsOne) {
  StreamBuffer buffer;
  buffer.PutStarted({.cached_tokens = 3});
  buffer.PutDelta(Delta("ab", {1, 2}));
  buffer.PutDelta(Delta("c", {3}));
  buffer.PutFinished({.output_tokens = 3});
  buffer.PutEnd(absl::OkStatus());
  EXPECT_FALSE(buffer.End().has_value());

  EXPECT_EQ(std::get<StartedInfo>(*buffer.Take()).cached_tokens, 3);
  const TokenDelta delta = std::get<TokenDelta>(*buffer.Take());
  EXPECT_EQ(delta.text, "abc");
  EXPECT_EQ(delta.token_ids, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(delta.logprobs.size(), 3u);
  EXPECT_FALSE(buffer.End().has_value());
  EXPECT_EQ(std::get<FinishedInfo>(*buffer.Take()).output_tokens, 3);
  EXPECT_FALSE(buffer.Take().has_value());
  ASSERT_TRUE(buffer.End().has_value());
  EXPECT_TRUE(buffer.End()->ok());
}

TEST(StreamBufferTest, IsFullWhenAClientDoesNotReadAndEmptyOnceItDoes) {
  StreamBuffer buffer;
  for (int i = 0; i < StreamBuffer::kMaxTokens; ++i) {
    EXPECT_FALSE(buffer.IsFull());
    buffer.PutDelta(Delta("x", {i}));
  }
  EXPECT_TRUE(buffer.IsFull());
  EXPECT_TRUE(buffer.Take().has_value());
  EXPECT_FALSE(buffer.IsFull());

  buffer.PutDelta(Delta(std::string(StreamBuffer::kMaxBytes, 'x'), {}));
  EXPECT_TRUE(buffer.IsFull());
}

TEST(StreamBufferTest, AnErrorComesAfterWhatWasThereAndTheFirstOneCounts) {
  StreamBuffer buffer;
  buffer.PutDelta(Delta("x", {1}));
  buffer.PutEnd(absl::UnavailableError("gone"));
  buffer.PutEnd(absl::CancelledError("late"));
  EXPECT_FALSE(buffer.End().has_value());
  EXPECT_TRUE(buffer.Take().has_value());
  EXPECT_TRUE(absl::IsUnavailable(*buffer.End()));
}

}  // namespace
}  // namespace tandem::gateway
