// What a template may use; the numbers are published in docs/chat-templates.md.
#pragma once

#include <cstdint>

namespace tandem::jinja {

inline constexpr int64_t kMaxSourceBytes = 256 << 10;
inline constexpr int64_t kMaxOutputBytes = 4 << 20;
inline constexpr int64_t kMaxStringBytes = 4 << 20;
inline constexpr int64_t kMaxListItems = 100000;  // jinja2's sandbox has it for range()
inline constexpr int64_t kMaxDictItems = 1024;

// One step for each statement, expression and list item touched, and for so many bytes
// copied: so memory is bounded with time, at 128 MB of text.
inline constexpr int64_t kMaxSteps = 1000000;
inline constexpr int64_t kBytesPerStep = 128;

// Depths keep every recursion over source, program and values within about 1 MiB of
// stack.
inline constexpr int kMaxBlockDepth = 64;
inline constexpr int kMaxExpressionDepth = 200;  // of the tree, long chains included
inline constexpr int kMaxNestedParentheses = 64;
inline constexpr int kMaxEvaluationDepth = 500;  // statements, expressions and macro calls
inline constexpr int kMaxValueDepth = 32;

}  // namespace tandem::jinja
