#include "common/telemetry/trace_context.h"

#include "gtest/gtest.h"

namespace tandem {
namespace {

constexpr char kValid[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceContextTest, ReadsTheExampleOfTheStandard) {
  const auto context = ParseTraceparent(kValid);
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(context->trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(context->parent_id, "00f067aa0ba902b7");
  EXPECT_TRUE(context->is_sampled);
  EXPECT_FALSE(
      ParseTraceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")->is_sampled);
}

TEST(TraceContextTest, TakesWhatALaterVersionAppends) {
  EXPECT_TRUE(
      ParseTraceparent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what").has_value());
  EXPECT_FALSE(
      ParseTraceparent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what").has_value());
}

TEST(TraceContextTest, RefusesWhatIsNone) {
  const std::string valid = kValid;
  for (size_t length = 0; length < valid.size(); ++length) {
    EXPECT_FALSE(ParseTraceparent(valid.substr(0, length)).has_value()) << length;
  }
  for (size_t i = 0; i < valid.size(); ++i) {
    std::string bad = valid;
    bad[i] = 'G';
    EXPECT_FALSE(ParseTraceparent(bad).has_value()) << bad;
  }
  EXPECT_FALSE(ParseTraceparent(valid + "-more").has_value());
  EXPECT_FALSE(ParseTraceparent("ff" + valid.substr(2)).has_value());
  EXPECT_FALSE(
      ParseTraceparent("00-00000000000000000000000000000000-00f067aa0ba902b7-01").has_value());
  EXPECT_FALSE(
      ParseTraceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01").has_value());
}

}  // namespace
}  // namespace tandem
