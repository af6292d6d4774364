// The classes of code points that pre-tokenizers tell apart.
#pragma once

namespace tandem {

enum class CharClass {
  kLetter,       // \p{L}
  kNumber,       // \p{N}
  kSpace,        // \s: the property White_Space
  kPunctuation,  // \p{P} and $ + < = > ^ ~ |
  kOther,        // marks, other symbols, controls, unassigned
  kEnd,          // no code point: the text is over
};

// The class of a code point as of Unicode 16, which is what the regular expressions of
// Hugging Face `tokenizers` 0.23 use: utf8proc (Unicode 15.0 in Debian 12), and a list of
// what is newer. Not in it: 13 numbers of Unicode 17, which the digit splitter of
// `tokenizers` knows and its regular expressions do not; they are kOther here.
CharClass ClassOf(char32_t code_point);

}  // namespace tandem
