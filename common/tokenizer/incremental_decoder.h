// Tokens to text while they are being made.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/tokenizer/tokenizer.h"

namespace tandem {

// Takes tokens one at a time and gives out only whole characters: a token may end in
// the middle of one. All that Append and Flush return, in a row, is exactly
// ReplaceInvalidUtf8(tokenizer.Decode(ids, ...)). Holds back at most three bytes. Not
// thread-safe; the tokenizer must outlive it.
class IncrementalDecoder {
 public:
  struct Options {
    bool render_special = false;
    DecodeStart start = DecodeStart::kText;
  };

  IncrementalDecoder(const Tokenizer* tokenizer, const Options& options);
  explicit IncrementalDecoder(const Tokenizer* tokenizer);

  // The text that is complete with this token: often none, never part of a character.
  // A sequence proven wrong gives U+FFFD. An id outside the vocabulary gives nothing.
  std::string Append(int32_t id);

  // What is held back, as U+FFFD since nothing completes it; empty if nothing is.
  // The decoder goes on as in the middle of a text.
  std::string Flush();

  // Bytes held back now.
  std::string_view pending() const { return pending_; }

 private:
  const Tokenizer* tokenizer_;
  bool render_special_;
  bool drop_space_;      // the next byte, if it is a space
  std::string pending_;  // the start of a character; at most three bytes
};

}  // namespace tandem
