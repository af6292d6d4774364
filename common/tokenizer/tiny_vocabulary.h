// Vocabularies small enough to reason about, so that tests need no file.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "common/tokenizer/tokenizer.h"

namespace tandem {

// GPT-2's spelling of bytes, the inverse of BytesOfAlphabet.
std::string SpelledInAlphabet(std::string_view bytes);

// Byte-level BPE with kGpt2: ids 0 to 255 are the bytes, then "he", "ll", "hell",
// "hello", " w", " wo" with the merges that make them; then "<|im_start|>" (bos),
// "<|im_end|>" (eos) and "<|pad|>", all CONTROL, and "<tool>", USER_DEFINED.
TokenizerSpec TinyByteLevelSpec();

// SentencePiece: <unk>, <s>, </s>, 256 byte tokens, then U+2581, letters, "he", "ll",
// "hell", "hello", "_hello", "_w" ("_" for U+2581); better scores first in this order:
// "ll", "he", "hell", "hello", "_hello", "_w".
TokenizerSpec TinySentencePieceSpec();

// Fails the test when it cannot be made.
std::unique_ptr<Tokenizer> MakeTokenizer(TokenizerSpec spec);

}  // namespace tandem
