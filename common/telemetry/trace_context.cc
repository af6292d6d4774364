#include "common/telemetry/trace_context.h"

#include <algorithm>

namespace tandem {
namespace {

constexpr size_t kLength = 55;

bool IsHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsZero(std::string_view text) { return text.find_first_not_of('0') == text.npos; }

}  // namespace

std::optional<TraceContext> ParseTraceparent(std::string_view traceparent) {
  if (traceparent.size() < kLength) return std::nullopt;
  const std::string_view version = traceparent.substr(0, 2);
  const std::string_view trace_id = traceparent.substr(3, 32);
  const std::string_view parent_id = traceparent.substr(36, 16);
  const std::string_view flags = traceparent.substr(53, 2);
  const bool has_dashes = traceparent[2] == '-' && traceparent[35] == '-' && traceparent[52] == '-';
  // A later version may have more after the flags; this one may not.
  const bool has_end =
      traceparent.size() == kLength || (version != "00" && traceparent[kLength] == '-');
  if (!has_dashes || !has_end || version == "ff" || !IsHex(version) || !IsHex(trace_id) ||
      !IsHex(parent_id) || !IsHex(flags) || IsZero(trace_id) || IsZero(parent_id)) {
    return std::nullopt;
  }
  const char last = flags[1];
  const int digit = last <= '9' ? last - '0' : last - 'a' + 10;
  return TraceContext{.trace_id = std::string(trace_id),
                      .parent_id = std::string(parent_id),
                      .is_sampled = (digit & 1) != 0};
}

}  // namespace tandem
