// The W3C header that ties a request to the trace of who sent it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tandem {

// Of "00-<trace id>-<parent id>-<flags>" (W3C Trace Context, section 3.2).
struct TraceContext {
  std::string trace_id;   // 32 lower-case hexadecimal digits, not all 0
  std::string parent_id;  // 16 of them, not all 0
  bool is_sampled = false;
};

// None when `traceparent` is not a valid one: it is then ignored, as the standard asks.
std::optional<TraceContext> ParseTraceparent(std::string_view traceparent);

}  // namespace tandem
