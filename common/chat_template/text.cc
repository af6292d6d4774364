#include "common/chat_template/text.h"

#include <utf8proc.h>

#include <algorithm>
#include <set>

namespace tandem::jinja {

void Text::Append(std::string_view bytes, bool from_content) {
  if (from_content && !bytes.empty()) {
    const int64_t begin = size();
    const int64_t end = begin + static_cast<int64_t>(bytes.size());
    if (!spans_.empty() && spans_.back().end == begin) {
      spans_.back().end = end;
    } else {
      spans_.push_back({begin, end});
    }
  }
  bytes_.append(bytes);
}

void Text::AppendSlice(const Text& other, int64_t begin, int64_t end) {
  const std::string_view bytes = other.bytes_;
  auto span = std::upper_bound(other.spans_.begin(), other.spans_.end(), begin,
                               [](int64_t at, const ContentSpan& s) { return at < s.end; });
  int64_t at = begin;
  for (; span != other.spans_.end() && span->begin < end; ++span) {
    const int64_t from = std::max(span->begin, begin);
    const int64_t to = std::min(span->end, end);
    Append(bytes.substr(at, from - at));
    Append(bytes.substr(from, to - from), /*from_content=*/true);
    at = to;
  }
  Append(bytes.substr(at, end - at));
}

Text Text::Slice(int64_t begin, int64_t end) const {
  Text slice;
  slice.AppendSlice(*this, begin, end);
  return slice;
}

bool OriginReader::IsContent(int64_t offset) {
  while (next_ < spans_.size() && spans_[next_].end <= offset) {
    ++next_;
  }
  return next_ < spans_.size() && spans_[next_].begin <= offset;
}

Character CharacterAt(std::string_view text, int64_t offset) {
  utf8proc_int32_t code_point = -1;
  const utf8proc_ssize_t length =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + offset,
                       static_cast<utf8proc_ssize_t>(text.size()) - offset, &code_point);
  if (length <= 0) {
    return {};
  }
  return {code_point, length};
}

int64_t CountCharacters(std::string_view text) {
  int64_t count = 0;
  for (int64_t at = 0; at < static_cast<int64_t>(text.size()); ++count) {
    at += CharacterAt(text, at).num_bytes;
  }
  return count;
}

std::vector<int64_t> CharacterOffsets(std::string_view text) {
  std::vector<int64_t> offsets;
  const auto size = static_cast<int64_t>(text.size());
  for (int64_t at = 0; at < size; at += CharacterAt(text, at).num_bytes) {
    offsets.push_back(at);
  }
  offsets.push_back(size);
  return offsets;
}

bool IsSpace(int32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

bool IsPrintable(int32_t c) {
  if (c == ' ') {
    return true;
  }
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    default:
      return c >= 0;
  }
}

bool IsCased(int32_t c) {
  if (c < 0) {
    return false;
  }
  const utf8proc_category_t category = utf8proc_category(c);
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
         category == UTF8PROC_CATEGORY_LT;
}

std::string ChangeCase(std::string_view character, Case target) {
  constexpr int32_t kSharpS = 0xdf;
  const int32_t from = CharacterAt(character, 0).code_point;
  if (from < 0) {
    return std::string(character);
  }
  if (from == kSharpS && target != Case::kLower) {
    return target == Case::kUpper ? "SS" : "Ss";
  }
  const int32_t to = target == Case::kLower   ? utf8proc_tolower(from)
                     : target == Case::kUpper ? utf8proc_toupper(from)
                                              : utf8proc_totitle(from);
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t length = utf8proc_encode_char(to, bytes);
  return std::string(reinterpret_cast<const char*>(bytes), length);
}

namespace {

// Rebuilds `text` character by character: `pick` tells the case for each.
template <typename Pick>
Text Recase(const Text& text, Pick pick) {
  Text changed;
  OriginReader origin(text);
  const std::string_view bytes = text.bytes();
  for (int64_t at = 0; at < text.size();) {
    const Character character = CharacterAt(bytes, at);
    changed.Append(ChangeCase(bytes.substr(at, character.num_bytes), pick(character.code_point)),
                   origin.IsContent(at));
    at += character.num_bytes;
  }
  return changed;
}

}  // namespace

Text ChangeCase(const Text& text, Case target) {
  return Recase(text, [target](int32_t) { return target; });
}

Text Capitalize(const Text& text) {
  bool first = true;
  return Recase(text, [&first](int32_t) {
    const Case target = first ? Case::kTitle : Case::kLower;
    first = false;
    return target;
  });
}

Text TitleByLetters(const Text& text) {
  bool in_word = false;
  return Recase(text, [&in_word](int32_t code_point) {
    const Case target = in_word ? Case::kLower : Case::kTitle;
    in_word = IsCased(code_point);
    return target;
  });
}

Text TitleByWords(const Text& text) {
  bool in_word = false;
  return Recase(text, [&in_word](int32_t c) {
    if (IsSpace(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<') {
      in_word = false;
      return Case::kLower;  // has none
    }
    const Case target = in_word ? Case::kLower : Case::kUpper;
    in_word = true;
    return target;
  });
}

Range Strip(std::string_view text, const std::string* chars, StripSides sides) {
  std::set<std::string_view> strip;
  for (int64_t at = 0; chars != nullptr && at < static_cast<int64_t>(chars->size());) {
    const int64_t num_bytes = CharacterAt(*chars, at).num_bytes;
    strip.insert(std::string_view(*chars).substr(at, num_bytes));
    at += num_bytes;
  }
  const auto is_stripped = [&](int64_t at, Character character) {
    return chars == nullptr ? IsSpace(character.code_point)
                            : strip.contains(text.substr(at, character.num_bytes));
  };
  Range kept = {0, static_cast<int64_t>(text.size())};
  while (sides.left && kept.begin < kept.end) {
    const Character character = CharacterAt(text, kept.begin);
    if (!is_stripped(kept.begin, character)) {
      break;
    }
    kept.begin += character.num_bytes;
  }
  while (sides.right && kept.begin < kept.end) {
    int64_t last = kept.end - 1;
    while (last > kept.begin && kept.end - last < 4 && (text[last] & 0xc0) == 0x80) {
      --last;
    }
    if (last + CharacterAt(text, last).num_bytes != kept.end) {
      last = kept.end - 1;  // not UTF-8: bytes are characters
    }
    if (!is_stripped(last, CharacterAt(text.substr(0, kept.end), last))) {
      break;
    }
    kept.end = last;
  }
  return kept;
}

std::vector<Range> SplitLines(std::string_view text) {
  std::vector<Range> lines;
  const auto size = static_cast<int64_t>(text.size());
  int64_t start = 0;
  for (int64_t at = 0; at < size;) {
    const Character character = CharacterAt(text, at);
    const int32_t c = character.code_point;
    const int64_t line_end = at;
    at += character.num_bytes;
    if ((c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029) {
      if (c == '\r' && at < size && text[at] == '\n') {
        ++at;
      }
      lines.push_back({start, line_end});
      start = at;
    }
  }
  if (start < size) {
    lines.push_back({start, size});
  }
  return lines;
}

}  // namespace tandem::jinja
