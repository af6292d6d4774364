// Lines on standard error: for people on a terminal, JSON otherwise. Never holds text of
// prompts or answers.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace tandem {

struct LogOptions {
  std::string component;       // "gateway", "target" or "draft"
  std::string level = "info";  // "debug", "info", "warn" or "error"
};

// To be called once, before threads start. INVALID_ARGUMENT for an unknown level.
absl::Status SetUpLogging(const LogOptions& options);

// Thread-safe. One event a line; line breaks in `message` are escaped.
void LogDebug(std::string_view message);
void LogInfo(std::string_view message);
void LogWarning(std::string_view message);
void LogError(std::string_view message);

}  // namespace tandem
