// Assertions that stay on in production: a broken invariant of our own stops the
// process before it corrupts a stream. Never on what a peer or a file sent.
#pragma once

namespace tandem::internal {
// Prints "file:line: CHECK failed: expression" to standard error and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* expression);
}  // namespace tandem::internal

#define TANDEM_CHECK(condition)                                        \
  do {                                                                 \
    if (!(condition)) [[unlikely]] {                                   \
      ::tandem::internal::CheckFailed(__FILE__, __LINE__, #condition); \
    }                                                                  \
  } while (false)
