// Lines on standard error: for people on a terminal, JSON otherwise. Never holds text of
// prompts or answers.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"

namespace tandem {

struct LogOptions {
  std::string component;       // "gateway", "target" or "draft"
  std::string level = "info";  // "debug", "info", "warn" or "error"
};

// To be called once, before threads start. INVALID_ARGUMENT for an unknown level.
absl::Status SetUpLogging(const LogOptions& options);

// Names and values beside a message: keys of the JSON object, or "name=value" for people.
using LogFields = std::initializer_list<std::pair<std::string_view, std::string_view>>;

// Thread-safe. One event a line; control characters in messages and fields are escaped.
void LogDebug(std::string_view message, LogFields fields = {});
void LogInfo(std::string_view message, LogFields fields = {});
void LogWarning(std::string_view message, LogFields fields = {});
void LogError(std::string_view message, LogFields fields = {});

// Lines written so far, by level: debug, info, warn, error. Zeros before SetUpLogging.
inline constexpr std::array<std::string_view, 4> kLogLevels = {"debug", "info", "warn", "error"};
std::array<int64_t, kLogLevels.size()> NumLogMessages();

}  // namespace tandem
