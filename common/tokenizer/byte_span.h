// A range of bytes of a text.
#pragma once

#include <cstdint>

namespace tandem {

// Bytes [begin, end) of a text.
struct ByteSpan {
  int64_t begin = 0;
  int64_t end = 0;

  friend bool operator==(const ByteSpan&, const ByteSpan&) = default;
};

}  // namespace tandem
