// GPT-2's way to write any byte as one visible character.
//
// Visible Latin-1 characters stand for themselves, the 68 other bytes for U+0100 to
// U+0143 in order: a space is U+0120. Vocabularies and merges are spelled in it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tandem {

// The bytes that `text` spells; nothing if a character of it is not in the alphabet.
// Requires valid UTF-8.
std::optional<std::string> BytesOfAlphabet(std::string_view text);

}  // namespace tandem
