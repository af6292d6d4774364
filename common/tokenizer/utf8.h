// UTF-8, with Python's idea of what a wrong byte is worth.
//
// A maximal subpart of an ill-formed sequence (Unicode standard, table 3-7 and
// section 3.9) becomes one U+FFFD, as `bytes.decode(errors="replace")` has it: a lead
// byte with too few continuation bytes counts once, every other wrong byte by itself.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tandem {

inline constexpr char32_t kReplacementCodePoint = 0xFFFD;
inline constexpr std::string_view kReplacementUtf8 = "\xEF\xBF\xBD";

// The first code point of a text, or the first thing in it that is none.
struct Utf8Step {
  enum class State {
    kValid,      // `code_point` is set
    kInvalid,    // never becomes valid, whatever follows
    kTruncated,  // the text ends inside a sequence that is right so far
  };
  State state;
  char32_t code_point;  // kReplacementCodePoint unless kValid
  int32_t length;       // bytes it takes, 1 to 4; when truncated, all that are left
};

// Requires a non-empty text.
Utf8Step DecodeUtf8(std::string_view text);

bool IsValidUtf8(std::string_view text);

// `text` with U+FFFD in place of whatever is not UTF-8. At most three times as long.
std::string ReplaceInvalidUtf8(std::string_view text);

// Requires a code point, not a surrogate.
void AppendUtf8(char32_t code_point, std::string* text);

}  // namespace tandem
