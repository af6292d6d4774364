#include "common/chat_template/literals.h"

#include <utf8proc.h>

#include <charconv>

#include "common/base/status_macros.h"
#include "common/chat_template/lexer.h"

namespace tandem::jinja {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

int DigitValue(char c) {
  if (IsDigit(c)) {
    return c - '0';
  }
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : 99;
}

// Bytes of (digit [_])* digit at `at`.
size_t MatchDigits(std::string_view text, size_t at, int base) {
  size_t end = at;
  while (end < text.size()) {
    const size_t digit = text[end] == '_' && end > at ? end + 1 : end;
    if (digit >= text.size() || DigitValue(text[digit]) >= base) {
      break;
    }
    end = digit + 1;
  }
  return end - at;
}

std::string WithoutUnderscores(std::string_view text) {
  std::string digits;
  for (const char c : text) {
    if (c != '_') {
      digits += c;
    }
  }
  return digits;
}

// Bytes of a real number at the start of `text`; 0 if it is an integer.
size_t MatchReal(std::string_view text) {
  size_t end = MatchDigits(text, 0, 10);
  bool real = false;
  if (end < text.size() && text[end] == '.') {
    const size_t fraction = MatchDigits(text, end + 1, 10);
    if (fraction > 0) {
      end += 1 + fraction;
      real = true;
    }
  }
  if (end < text.size() && (text[end] | 0x20) == 'e') {
    const size_t sign =
        end + 1 < text.size() && (text[end + 1] == '+' || text[end + 1] == '-') ? 1 : 0;
    const size_t exponent = MatchDigits(text, end + 1 + sign, 10);
    if (exponent > 0) {
      end += 1 + sign + exponent;
      real = true;
    }
  }
  return real ? end : 0;
}

absl::Status AppendCodePoint(uint32_t code_point, std::string& out, int line) {
  if (code_point > 0x10ffff || (code_point >= 0xd800 && code_point < 0xe000)) {
    return SyntaxError(line, "an escape in a string is no character");
  }
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t length =
      utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  out.append(reinterpret_cast<const char*>(bytes), length);
  return absl::OkStatus();
}

// A code point of `max_digits` digits at `at`, at least `min_digits`; moves `at` on.
absl::Status AppendNumeric(std::string_view body, size_t& at, int base, size_t min_digits,
                           size_t max_digits, std::string& out, int line) {
  uint32_t code_point = 0;
  size_t count = 0;
  while (count < max_digits && at < body.size() && DigitValue(body[at]) < base) {
    code_point = code_point * base + DigitValue(body[at]);
    ++at;
    ++count;
  }
  if (count < min_digits) {
    return SyntaxError(line, "an escape in a string has too few digits");
  }
  return AppendCodePoint(code_point, out, line);
}

}  // namespace

absl::StatusOr<NumberLiteral> ReadNumber(std::string_view text, bool after_dot, int line) {
  NumberLiteral number;
  const size_t real_bytes = after_dot ? 0 : MatchReal(text);
  if (real_bytes > 0) {
    const std::string digits = WithoutUnderscores(text.substr(0, real_bytes));
    number.is_real = true;
    number.num_bytes = real_bytes;
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), number.real);
    if (read.ec != std::errc()) {
      return SyntaxError(line, "a number is out of range");
    }
    return number;
  }
  int base = 10;
  size_t prefix = 0;
  if (text[0] == '0' && text.size() > 2) {
    const char letter = static_cast<char>(text[1] | 0x20);
    base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
    prefix = base == 10 ? 0 : 2;
  }
  size_t digits_bytes = MatchDigits(text, prefix, base);
  if (digits_bytes == 0) {  // "0x" and nothing
    base = 10;
    prefix = 0;
    digits_bytes = 1;
  } else if (base == 10 && text[0] == '0') {  // "007" is three numbers, as in jinja2
    digits_bytes = MatchDigits(text, 0, 1);
  }
  const std::string digits = WithoutUnderscores(text.substr(prefix, digits_bytes));
  number.num_bytes = prefix + digits_bytes;
  const auto read =
      std::from_chars(digits.data(), digits.data() + digits.size(), number.integer, base);
  if (read.ec != std::errc()) {
    return SyntaxError(line, "a number is out of the range of 64 bits");
  }
  return number;
}

absl::StatusOr<std::string> Unescape(std::string_view body, int line) {
  constexpr std::string_view kLetters = "ntr\\'\"abfv";
  constexpr std::string_view kMeanings = "\n\t\r\\'\"\a\b\f\v";
  std::string out;
  for (size_t at = 0; at < body.size();) {
    if (body[at] != '\\') {
      out += body[at++];
      continue;
    }
    const char c = body[at + 1];  // there is one: the closing quote is not escaped
    at += 2;
    if (const size_t letter = kLetters.find(c); letter != kLetters.npos) {
      out += kMeanings[letter];
    } else if (c == 'x') {
      RETURN_IF_ERROR(AppendNumeric(body, at, 16, 2, 2, out, line));
    } else if (c == 'u') {
      RETURN_IF_ERROR(AppendNumeric(body, at, 16, 4, 4, out, line));
    } else if (c == 'U') {
      RETURN_IF_ERROR(AppendNumeric(body, at, 16, 8, 8, out, line));
    } else if (c >= '0' && c <= '7') {
      --at;
      RETURN_IF_ERROR(AppendNumeric(body, at, 8, 1, 3, out, line));
    } else if (c == 'N') {
      return SyntaxError(line, "\\N{...} in a string is not supported");
    } else if (c != '\n') {  // a backslash before a line end joins the lines
      out += '\\';
      out += c;
    }
  }
  return out;
}

}  // namespace tandem::jinja
