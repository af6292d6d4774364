#include "common/telemetry/log.h"

#include <spdlog/formatter.h>
#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"

namespace tandem {
namespace {

// {"time":"2026-01-31T12:00:00.123Z","level":"info","component":"gateway","message":"..."}
class JsonFormatter final : public spdlog::formatter {
 public:
  explicit JsonFormatter(std::string component) : component_(std::move(component)) {}

  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const auto level = spdlog::level::to_string_view(message.level);
    nlohmann::ordered_json line = {
        {"time", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromChrono(message.time),
                                  absl::UTCTimeZone())},
        {"level", std::string(level.data(), level.size())},
        {"component", component_},
        {"message", std::string(message.payload.data(), message.payload.size())}};
    // Bytes that are no UTF-8 must not throw.
    const std::string text =
        line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    out.append(text.data(), text.data() + text.size());
  }

  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<JsonFormatter>(component_);
  }

 private:
  std::string component_;
};

void Log(spdlog::level::level_enum level, std::string_view message) {
  if (!spdlog::should_log(level)) return;
  const std::string text(message);
  const std::string line = absl::StrReplaceAll(text, {{"\n", "\\n"}, {"\r", "\\r"}});
  spdlog::log(level, spdlog::string_view_t(line));
}

}  // namespace

absl::Status SetUpLogging(const LogOptions& options) {
  const spdlog::level::level_enum level = spdlog::level::from_str(options.level);
  if (level == spdlog::level::off && options.level != "off") {
    return absl::InvalidArgumentError(
        absl::StrCat("--log-level is '", options.level, "', not one of debug, info, warn, error"));
  }
  auto logger = std::make_shared<spdlog::logger>(
      options.component, std::make_shared<spdlog::sinks::ansicolor_stderr_sink_mt>());
  logger->set_level(level);
  logger->flush_on(spdlog::level::trace);
  if (isatty(STDERR_FILENO) != 0) {
    logger->set_pattern("%H:%M:%S.%e %^%l%$ %n: %v");
  } else {
    logger->set_formatter(std::make_unique<JsonFormatter>(options.component));
  }
  spdlog::set_default_logger(std::move(logger));
  return absl::OkStatus();
}

void LogDebug(std::string_view message) { Log(spdlog::level::debug, message); }
void LogInfo(std::string_view message) { Log(spdlog::level::info, message); }
void LogWarning(std::string_view message) { Log(spdlog::level::warn, message); }
void LogError(std::string_view message) { Log(spdlog::level::err, message); }

}  // namespace tandem
