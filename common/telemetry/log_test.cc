#include "common/telemetry/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tandem {
namespace {

// What `run` writes to standard error, which is no terminal meanwhile.
std::string StderrOf(const std::function<void()>& run) {
  testing::internal::CaptureStderr();
  run();
  return testing::internal::GetCapturedStderr();
}

TEST(LogTest, OffATerminalEachLineIsAJsonObject) {
  const std::string text = StderrOf([] {
    ASSERT_TRUE(SetUpLogging({.component = "target", .level = "info"}).ok());
    LogInfo("two\nlines \"quoted\" \xff", {{"request_id", "a\x1f\nb"}, {"code", "OK"}});
    LogDebug("not asked for");
  });
  ASSERT_FALSE(text.empty());
  EXPECT_EQ(text.find('\n'), text.size() - 1);
  const nlohmann::json line = nlohmann::json::parse(text);
  EXPECT_EQ(line["level"], "info");
  EXPECT_EQ(line["component"], "target");
  EXPECT_EQ(line["message"], "two\\nlines \"quoted\" \xEF\xBF\xBD");
  EXPECT_EQ(line["request_id"], "a?\\nb");
  EXPECT_EQ(line["code"], "OK");
  EXPECT_EQ(line["time"].get<std::string>().size(), 24u);
}

TEST(LogTest, LinesAreCountedByLevel) {
  StderrOf([] {
    ASSERT_TRUE(SetUpLogging({.component = "gateway", .level = "warn"}).ok());
    LogInfo("below the level");
    LogWarning("one");
    LogWarning("two");
    LogError("three");
  });
  EXPECT_EQ(NumLogMessages(), (std::array<int64_t, 4>{0, 0, 2, 1}));
}

// Lines said "warning", the flag and the metric "warn".
TEST(LogTest, ALineNamesItsLevelAsTheFlagDoes) {
  const std::string text = StderrOf([] {
    ASSERT_TRUE(SetUpLogging({.component = "gateway", .level = "debug"}).ok());
    LogDebug("");
    LogInfo("");
    LogWarning("");
    LogError("");
  });
  size_t at = 0;
  for (const std::string_view level : kLogLevels) {
    at = text.find(absl::StrCat("\"level\":\"", std::string(level), "\""), at);
    EXPECT_NE(at, std::string::npos) << level << " in " << text;
  }
}

TEST(LogTest, RefusesAnUnknownLevel) {
  EXPECT_EQ(SetUpLogging({.component = "gateway", .level = "loud"}).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tandem
