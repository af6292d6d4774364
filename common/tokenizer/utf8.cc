#include "common/tokenizer/utf8.h"

#include <cstring>

namespace tandem {
namespace {

using State = Utf8Step::State;

uint8_t ByteAt(std::string_view text, size_t i) { return static_cast<uint8_t>(text[i]); }

// Bytes of a sequence and the range of its second byte, by its lead byte.
struct Lead {
  int32_t length;  // 0: not a lead byte
  uint8_t second_min = 0x80;
  uint8_t second_max = 0xBF;
};

// The second byte's range keeps out overlong forms (E0, F0), surrogates (ED) and
// what lies beyond U+10FFFF (F4).
Lead LeadOf(uint8_t byte) {
  if (byte < 0xC2) return {.length = 0};
  if (byte < 0xE0) return {.length = 2};
  if (byte == 0xE0) return {.length = 3, .second_min = 0xA0};
  if (byte == 0xED) return {.length = 3, .second_max = 0x9F};
  if (byte < 0xF0) return {.length = 3};
  if (byte == 0xF0) return {.length = 4, .second_min = 0x90};
  if (byte < 0xF4) return {.length = 4};
  if (byte == 0xF4) return {.length = 4, .second_max = 0x8F};
  return {.length = 0};
}

// Length of the ASCII run at the start of `text`, in steps of eight.
size_t AsciiPrefix(std::string_view text) {
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, sizeof(word));
    if ((word & 0x8080808080808080u) != 0) break;
  }
  return i;
}

// Length of the longest prefix of `text` that is valid.
size_t ValidPrefix(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    i += AsciiPrefix(text.substr(i));
    if (i == text.size()) break;
    const Utf8Step step = DecodeUtf8(text.substr(i));
    if (step.state != State::kValid) return i;
    i += static_cast<size_t>(step.length);
  }
  return i;
}

}  // namespace

Utf8Step DecodeUtf8(std::string_view text) {
  const uint8_t first = ByteAt(text, 0);
  if (first < 0x80) return {State::kValid, first, 1};
  const Lead lead = LeadOf(first);
  if (lead.length == 0) return {State::kInvalid, kReplacementCodePoint, 1};

  char32_t code_point = first & (0x7Fu >> lead.length);
  for (int32_t i = 1; i < lead.length; ++i) {
    if (static_cast<size_t>(i) == text.size()) {
      return {State::kTruncated, kReplacementCodePoint, i};
    }
    const uint8_t byte = ByteAt(text, static_cast<size_t>(i));
    const uint8_t min = i == 1 ? lead.second_min : 0x80;
    const uint8_t max = i == 1 ? lead.second_max : 0xBF;
    if (byte < min || byte > max) return {State::kInvalid, kReplacementCodePoint, i};
    code_point = (code_point << 6) | (byte & 0x3Fu);
  }
  return {State::kValid, code_point, lead.length};
}

bool IsValidUtf8(std::string_view text) { return ValidPrefix(text) == text.size(); }

std::string ReplaceInvalidUtf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const size_t valid = ValidPrefix(text);
    result.append(text.substr(0, valid));
    text.remove_prefix(valid);
    if (text.empty()) break;
    result.append(kReplacementUtf8);
    text.remove_prefix(static_cast<size_t>(DecodeUtf8(text).length));
  }
  return result;
}

void AppendUtf8(char32_t code_point, std::string* text) {
  const auto put = [text](uint32_t byte) { text->push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6));
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | (code_point >> 18));
    put(0x80 | ((code_point >> 12) & 0x3F));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

}  // namespace tandem
