#include "common/tokenizer/char_class.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <iterator>

namespace tandem {
namespace {

struct Range {
  char32_t first;
  char32_t last;
  CharClass char_class;
};

constexpr CharClass kL = CharClass::kLetter;
constexpr CharClass kN = CharClass::kNumber;
constexpr CharClass kP = CharClass::kPunctuation;

// Letters, numbers and punctuation of Unicode 15.1 and 16.0, which utf8proc 2.8 calls
// unassigned. Measured against `tokenizers` 0.23.3 over all code points.
constexpr Range kNewerThanUnicode15[] = {
    {0x1B4E, 0x1B4F, kP},   {0x1B7F, 0x1B7F, kP},   {0x1C89, 0x1C8A, kL},   {0xA7CB, 0xA7CD, kL},
    {0xA7DA, 0xA7DC, kL},   {0x105C0, 0x105F3, kL}, {0x10D40, 0x10D49, kN}, {0x10D4A, 0x10D65, kL},
    {0x10D6E, 0x10D6E, kP}, {0x10D6F, 0x10D85, kL}, {0x10EC2, 0x10EC4, kL}, {0x11380, 0x11389, kL},
    {0x1138B, 0x1138B, kL}, {0x1138E, 0x1138E, kL}, {0x11390, 0x113B5, kL}, {0x113B7, 0x113B7, kL},
    {0x113D1, 0x113D1, kL}, {0x113D3, 0x113D3, kL}, {0x113D4, 0x113D5, kP}, {0x113D7, 0x113D8, kP},
    {0x116D0, 0x116E3, kN}, {0x11BC0, 0x11BE0, kL}, {0x11BE1, 0x11BE1, kP}, {0x11BF0, 0x11BF9, kN},
    {0x13460, 0x143FA, kL}, {0x16100, 0x1611D, kL}, {0x16130, 0x16139, kN}, {0x16D40, 0x16D6C, kL},
    {0x16D6D, 0x16D6F, kP}, {0x16D70, 0x16D79, kN}, {0x18CFF, 0x18CFF, kL}, {0x1CCF0, 0x1CCF9, kN},
    {0x1E5D0, 0x1E5ED, kL}, {0x1E5F0, 0x1E5F0, kL}, {0x1E5F1, 0x1E5FA, kN}, {0x1E5FF, 0x1E5FF, kP},
    {0x2EBF0, 0x2EE5D, kL},
};

CharClass ClassOfUnassigned(char32_t code_point) {
  const auto* range =
      std::upper_bound(std::begin(kNewerThanUnicode15), std::end(kNewerThanUnicode15), code_point,
                       [](char32_t value, const Range& r) { return value < r.first; });
  if (range == std::begin(kNewerThanUnicode15)) return CharClass::kOther;
  --range;
  return code_point <= range->last ? range->char_class : CharClass::kOther;
}

constexpr std::array<CharClass, 128> AsciiClasses() {
  std::array<CharClass, 128> classes{};
  for (int c = 0; c < 128; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool number = c >= '0' && c <= '9';
    const bool space = c == ' ' || (c >= 9 && c <= 13);
    // '`' is the one printable ASCII character left: \p{Sk}.
    const bool punctuation = c > 32 && c < 127 && c != '`';
    classes[static_cast<size_t>(c)] = letter        ? CharClass::kLetter
                                      : number      ? CharClass::kNumber
                                      : space       ? CharClass::kSpace
                                      : punctuation ? CharClass::kPunctuation
                                                    : CharClass::kOther;
  }
  return classes;
}

constexpr std::array<CharClass, 128> kAsciiClasses = AsciiClasses();

}  // namespace

CharClass ClassOf(char32_t code_point) {
  if (code_point < 128) return kAsciiClasses[code_point];
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::kNumber;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return CharClass::kPunctuation;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return CharClass::kSpace;
    case UTF8PROC_CATEGORY_CC:  // U+0085, next line, is white space by property
      return code_point == 0x85 ? CharClass::kSpace : CharClass::kOther;
    case UTF8PROC_CATEGORY_CN:
      return ClassOfUnassigned(code_point);
    default:
      return CharClass::kOther;
  }
}

}  // namespace tandem
