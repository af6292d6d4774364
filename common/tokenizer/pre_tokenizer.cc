#include "common/tokenizer/pre_tokenizer.h"

#include "common/tokenizer/char_class.h"
#include "common/tokenizer/utf8.h"

namespace tandem {
namespace {

struct Char {
  CharClass char_class;  // kEnd behind the text
  char32_t code_point;
  size_t length;
};

Char CharAt(std::string_view text, size_t at) {
  if (at >= text.size()) return {CharClass::kEnd, 0, 0};
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {ClassOf(first), first, 1};
  const Utf8Step step = DecodeUtf8(text.substr(at));
  return {ClassOf(step.code_point), step.code_point, static_cast<size_t>(step.length)};
}

bool IsNewline(const Char& c) { return c.code_point == '\n' || c.code_point == '\r'; }

// [^\s\p{L}\p{N}]
bool IsSymbol(CharClass c) { return c == CharClass::kPunctuation || c == CharClass::kOther; }

// Where the run of characters that satisfy `belongs` ends, from `at` on.
template <typename Predicate>
size_t EndOfRun(std::string_view text, size_t at, Predicate belongs) {
  for (Char c = CharAt(text, at); c.char_class != CharClass::kEnd && belongs(c);
       c = CharAt(text, at)) {
    at += c.length;
  }
  return at;
}

size_t EndOfClass(std::string_view text, size_t at, CharClass char_class) {
  return EndOfRun(text, at, [char_class](const Char& c) { return c.char_class == char_class; });
}

size_t EndOfSymbols(std::string_view text, size_t at) {
  return EndOfRun(text, at, [](const Char& c) { return IsSymbol(c.char_class); });
}

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

// Length of the English contraction at the start of `text`, 0 if there is none. With
// `any_case`, U+017F (long s) is an s too, as in the regular expressions' case folding.
size_t ContractionLength(std::string_view text, bool any_case) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  const char first = any_case ? Lower(text[1]) : text[1];
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if (text.size() < 3) return 0;
  const char second = any_case ? Lower(text[2]) : text[2];
  if (first == 'r' && second == 'e') return 3;
  if (first == 'v' && second == 'e') return 3;
  if (first == 'l' && second == 'l') return 3;
  if (any_case && text.substr(1, 2) == "\xC5\xBF") return 3;
  return 0;
}

// Length of the white space at the start of `text` that is one piece:
// \s+(?!\S)|\s+ leaves the last character to the word behind it, if there is one.
// `ends_text` tells whether a class behind the run counts as the end of the text.
template <typename Predicate>
size_t WhiteSpaceLength(std::string_view text, Predicate ends_text) {
  size_t end = 0;
  size_t last_length = 0;
  Char c = CharAt(text, 0);
  for (; c.char_class == CharClass::kSpace; c = CharAt(text, end)) {
    end += c.length;
    last_length = c.length;
  }
  const bool at_end = c.char_class == CharClass::kEnd || ends_text(c.char_class);
  return at_end || end == last_length ? end : end - last_length;
}

// kGpt2, with `ends_text` classes taken for the end of the text. Requires that the
// first character is of no such class.
template <typename Predicate>
size_t Gpt2Length(std::string_view text, Predicate ends_text) {
  if (const size_t length = ContractionLength(text, /*any_case=*/false); length > 0) return length;
  const size_t start = text[0] == ' ' ? 1 : 0;
  const CharClass char_class = CharAt(text, start).char_class;
  if (char_class == CharClass::kEnd || ends_text(char_class)) return start;
  if (char_class == CharClass::kSpace) return WhiteSpaceLength(text, ends_text);
  if (IsSymbol(char_class)) {
    return EndOfRun(text, start, [ends_text](const Char& c) {
      return IsSymbol(c.char_class) && !ends_text(c.char_class);
    });
  }
  return EndOfClass(text, start, char_class);
}

size_t SmolLmLength(std::string_view text) {
  const Char first = CharAt(text, 0);
  if (first.char_class == CharClass::kNumber) return first.length;
  return Gpt2Length(text, [](CharClass c) { return c == CharClass::kNumber; });
}

// Length of `\s*[\r\n]+`: to behind the last newline of the white space at the start
// of `text`, 0 without one.
size_t NewlinesLength(std::string_view text) {
  size_t end = 0;
  size_t length = 0;
  for (Char c = CharAt(text, 0); c.char_class == CharClass::kSpace; c = CharAt(text, end)) {
    end += c.length;
    if (IsNewline(c)) length = end;
  }
  return length;
}

size_t Llama3Length(std::string_view text) {
  if (const size_t length = ContractionLength(text, /*any_case=*/true); length > 0) return length;
  const Char first = CharAt(text, 0);
  if (first.char_class == CharClass::kLetter) return EndOfClass(text, 0, CharClass::kLetter);
  if (first.char_class == CharClass::kNumber) {
    size_t end = first.length;
    for (int i = 1; i < 3; ++i) {
      const Char c = CharAt(text, end);
      if (c.char_class != CharClass::kNumber) break;
      end += c.length;
    }
    return end;
  }
  const Char second = CharAt(text, first.length);
  if (second.char_class == CharClass::kLetter && !IsNewline(first)) {
    return EndOfClass(text, first.length, CharClass::kLetter);
  }
  const size_t start = first.code_point == ' ' ? 1 : 0;
  if (const size_t end = EndOfSymbols(text, start); end > start) {
    return EndOfRun(text, end, IsNewline);
  }
  if (const size_t length = NewlinesLength(text); length > 0) return length;
  return WhiteSpaceLength(text, [](CharClass) { return false; });
}

bool StartsWithThreeDigits(std::string_view text) {
  if (text.size() < 3) return false;
  for (const char c : text.substr(0, 3)) {
    if (c < '0' || c > '9') return false;
  }
  return true;
}

size_t DefaultLength(std::string_view text) {
  const Char first = CharAt(text, 0);
  if (first.char_class == CharClass::kPunctuation) {
    return EndOfClass(text, 0, CharClass::kPunctuation);
  }
  if (first.char_class == CharClass::kNumber) {
    if (StartsWithThreeDigits(text)) return 3;
    size_t end = first.length;
    for (Char c = CharAt(text, end); c.char_class == CharClass::kNumber; c = CharAt(text, end)) {
      if (StartsWithThreeDigits(text.substr(end))) break;
      end += c.length;
    }
    return end;
  }
  // A number is taken from the space that kGpt2 would leave before it.
  if (text[0] == ' ' && CharAt(text, 1).char_class == CharClass::kNumber) return 1;
  return Gpt2Length(text, [](CharClass c) { return c == CharClass::kPunctuation; });
}

}  // namespace

size_t FirstPieceLength(PreTokenizer kind, std::string_view text) {
  switch (kind) {
    case PreTokenizer::kGpt2:
      return Gpt2Length(text, [](CharClass) { return false; });
    case PreTokenizer::kSmolLm:
      return SmolLmLength(text);
    case PreTokenizer::kLlama3:
      return Llama3Length(text);
    case PreTokenizer::kDefault:
      return DefaultLength(text);
  }
  return text.size();
}

}  // namespace tandem
