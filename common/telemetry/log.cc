#include "common/telemetry/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"

namespace tandem {
namespace {

// Between message, names and values on their way to the formatter; escaped in all of them.
constexpr char kSeparator = '\x1f';

std::vector<std::string> PartsOf(const spdlog::details::log_msg& message) {
  return absl::StrSplit(absl::string_view(message.payload.data(), message.payload.size()),
                        kSeparator);
}

// Messages are of one of kLogLevels.
std::string_view LevelName(spdlog::level::level_enum level) {
  return kLogLevels[static_cast<size_t>(level) - static_cast<size_t>(spdlog::level::debug)];
}

// {"time":"2026-01-31T12:00:00.123Z","level":"info","component":"gateway","message":"..."}
class JsonFormatter final : public spdlog::formatter {
 public:
  explicit JsonFormatter(std::string component) : component_(std::move(component)) {}

  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    // As --log-level and the metric have it: spdlog's own is "warning".
    const std::string_view level = LevelName(message.level);
    const std::vector<std::string> parts = PartsOf(message);
    nlohmann::ordered_json line = {
        {"time", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromChrono(message.time),
                                  absl::UTCTimeZone())},
        {"level", std::string(level)},
        {"component", component_},
        {"message", parts[0]}};
    for (size_t i = 1; i + 1 < parts.size(); i += 2) line[parts[i]] = parts[i + 1];
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

// 12:00:00.123 info gateway: message name=value
class HumanFormatter final : public spdlog::formatter {
 public:
  HumanFormatter() : pattern_("%H:%M:%S.%e %^%l%$ %n: %v") {}

  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const std::vector<std::string> parts = PartsOf(message);
    std::string text = parts[0];
    for (size_t i = 1; i + 1 < parts.size(); i += 2) {
      absl::StrAppend(&text, " ", parts[i], "=", parts[i + 1]);
    }
    spdlog::details::log_msg readable = message;
    readable.payload = text;
    pattern_.format(readable, out);
    message.color_range_start = readable.color_range_start;
    message.color_range_end = readable.color_range_end;
  }

  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<HumanFormatter>();
  }

 private:
  spdlog::pattern_formatter pattern_;
};

// Counts lines, writes nothing.
class CountingSink final : public spdlog::sinks::sink {
 public:
  void log(const spdlog::details::log_msg& message) override {
    const int index = static_cast<int>(message.level) - static_cast<int>(spdlog::level::debug);
    if (index >= 0 && index < static_cast<int>(counts_.size())) ++counts_[index];
  }
  void flush() override {}
  void set_pattern(const std::string&) override {}
  void set_formatter(std::unique_ptr<spdlog::formatter>) override {}

  int64_t count(size_t index) const { return counts_[index]; }

 private:
  std::array<std::atomic<int64_t>, kLogLevels.size()> counts_ = {};
};

// One line, whatever is in it.
void AppendEscaped(std::string_view text, std::string* line) {
  for (const char c : text) {
    if (c == '\n') {
      line->append("\\n");
    } else if (c == '\r') {
      line->append("\\r");
    } else {
      line->push_back(c == kSeparator ? '?' : c);
    }
  }
}

void Log(spdlog::level::level_enum level, std::string_view message, LogFields fields) {
  if (!spdlog::should_log(level)) return;
  std::string line;
  AppendEscaped(message, &line);
  for (const auto& [name, value] : fields) {
    line.push_back(kSeparator);
    AppendEscaped(name, &line);
    line.push_back(kSeparator);
    AppendEscaped(value, &line);
  }
  spdlog::log(level, spdlog::string_view_t(line));
}

}  // namespace

absl::Status SetUpLogging(const LogOptions& options) {
  const spdlog::level::level_enum level = spdlog::level::from_str(options.level);
  if (level == spdlog::level::off && options.level != "off") {
    return absl::InvalidArgumentError(
        absl::StrCat("--log-level is '", options.level, "', not one of debug, info, warn, error"));
  }
  const auto sink = std::make_shared<spdlog::sinks::ansicolor_stderr_sink_mt>();
  if (isatty(STDERR_FILENO) != 0) {
    sink->set_formatter(std::make_unique<HumanFormatter>());
  } else {
    sink->set_formatter(std::make_unique<JsonFormatter>(options.component));
  }
  const spdlog::sinks_init_list sinks = {sink, std::make_shared<CountingSink>()};
  auto logger = std::make_shared<spdlog::logger>(options.component, sinks);
  logger->set_level(level);
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
  return absl::OkStatus();
}

void LogDebug(std::string_view message, LogFields fields) {
  Log(spdlog::level::debug, message, fields);
}
void LogInfo(std::string_view message, LogFields fields) {
  Log(spdlog::level::info, message, fields);
}
void LogWarning(std::string_view message, LogFields fields) {
  Log(spdlog::level::warn, message, fields);
}
void LogError(std::string_view message, LogFields fields) {
  Log(spdlog::level::err, message, fields);
}

std::array<int64_t, kLogLevels.size()> NumLogMessages() {
  std::array<int64_t, kLogLevels.size()> counts = {};
  const std::shared_ptr<spdlog::logger> logger = spdlog::default_logger();
  for (const spdlog::sink_ptr& sink : logger->sinks()) {
    const auto* counting = dynamic_cast<const CountingSink*>(sink.get());
    if (counting == nullptr) continue;
    for (size_t i = 0; i < counts.size(); ++i) counts[i] = counting->count(i);
  }
  return counts;
}

}  // namespace tandem
