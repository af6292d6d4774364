// Where in a rendered prompt the clients' own words lie.
#pragma once

#include <cstdint>

namespace tandem {

// Bytes [begin, end) of a text.
struct ContentSpan {
  int64_t begin = 0;
  int64_t end = 0;

  friend bool operator==(const ContentSpan&, const ContentSpan&) = default;
};

}  // namespace tandem
