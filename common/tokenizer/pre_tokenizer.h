// Splits text into the pieces that byte-pair merges never cross.
//
// The splitters are written by hand after the regular expressions that the models were
// trained with; none of these looks behind, so a piece depends only on what follows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tandem {

enum class PreTokenizer : int8_t {
  // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  kGpt2,
  // Every \p{N} by itself; what is between them as kGpt2, each part on its own.
  kSmolLm,
  // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
  //  ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  kLlama3,
  // What llama.cpp does for a file that names none, or "default": runs of
  // [\p{P}$+<=>^~|] by themselves, then kGpt2, then \p{N}+, then [0-9][0-9][0-9].
  kDefault,
};

// Bytes in the first piece of `text`. Requires text to be valid UTF-8 and not empty.
// Linear over all the pieces of a text.
size_t FirstPieceLength(PreTokenizer kind, std::string_view text);

}  // namespace tandem
