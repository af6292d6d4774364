// Strings that remember which of their bytes came from messages, and the handful of
// Unicode that Python's strings know.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/chat_template/content_span.h"

namespace tandem::jinja {

// UTF-8 with the spans that came from message content. Bytes that are no UTF-8 count
// as one character each.
class Text {
 public:
  Text() = default;
  explicit Text(std::string_view bytes, bool from_content = false) { Append(bytes, from_content); }

  const std::string& bytes() const { return bytes_; }
  const std::vector<ContentSpan>& spans() const { return spans_; }
  int64_t size() const { return static_cast<int64_t>(bytes_.size()); }
  bool empty() const { return bytes_.empty(); }
  bool has_content() const { return !spans_.empty(); }

  void Append(std::string_view bytes, bool from_content = false);
  void Append(const Text& other) { AppendSlice(other, 0, other.size()); }
  // Bytes [begin, end) of `other`, which may not be *this.
  void AppendSlice(const Text& other, int64_t begin, int64_t end);
  Text Slice(int64_t begin, int64_t end) const;

 private:
  std::string bytes_;
  std::vector<ContentSpan> spans_;  // ascending, apart, none empty
};

// Walks a text's bytes from front to back and tells which came from content.
class OriginReader {
 public:
  explicit OriginReader(const Text& text) : spans_(text.spans()) {}
  // Requires offsets that never go down.
  bool IsContent(int64_t offset);

 private:
  const std::vector<ContentSpan>& spans_;
  size_t next_ = 0;
};

// The character at `offset`: its code point (-1 for a byte that is no UTF-8) and bytes.
struct Character {
  int32_t code_point = -1;
  int64_t num_bytes = 1;
};
Character CharacterAt(std::string_view text, int64_t offset);

int64_t CountCharacters(std::string_view text);
// The byte at which each character begins, and the size at the end.
std::vector<int64_t> CharacterOffsets(std::string_view text);

// As str.isspace() and the \s of regular expressions.
bool IsSpace(int32_t code_point);
// As str.isprintable().
bool IsPrintable(int32_t code_point);
bool IsCased(int32_t code_point);

enum class Case { kLower, kUpper, kTitle };
// `text` with each character changed; one to one but for German sharp s.
Text ChangeCase(const Text& text, Case target);
std::string ChangeCase(std::string_view character, Case target);
// As str.capitalize(), str.title(), and the filter `title`, whose words begin after
// blanks, hyphens and opening brackets.
Text Capitalize(const Text& text);
Text TitleByLetters(const Text& text);
Text TitleByWords(const Text& text);

// Bytes [begin, end) that str.strip(chars) keeps; of whitespace without `chars`.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
};
struct StripSides {
  bool left = true;
  bool right = true;
};
Range Strip(std::string_view text, const std::string* chars, StripSides sides);

// As str.splitlines(), without line ends.
std::vector<Range> SplitLines(std::string_view text);

}  // namespace tandem::jinja
