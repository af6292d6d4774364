#include "common/tokenizer/incremental_decoder.h"

#include "common/tokenizer/utf8.h"

namespace tandem {
namespace {

// Bytes at the end of `text` that begin a character without finishing it.
size_t TruncatedTail(std::string_view text) {
  const size_t window = text.size() < 3 ? text.size() : 3;
  for (size_t length = window; length > 0; --length) {
    const Utf8Step step = DecodeUtf8(text.substr(text.size() - length));
    if (step.state == Utf8Step::State::kTruncated) return length;
  }
  return 0;
}

}  // namespace

IncrementalDecoder::IncrementalDecoder(const Tokenizer* tokenizer, const Options& options)
    : tokenizer_(tokenizer),
      render_special_(options.render_special),
      drop_space_(options.start == DecodeStart::kText && tokenizer->add_space_prefix()) {}

IncrementalDecoder::IncrementalDecoder(const Tokenizer* tokenizer)
    : IncrementalDecoder(tokenizer, Options{}) {}

std::string IncrementalDecoder::Append(int32_t id) {
  std::string_view bytes = tokenizer_->TokenBytes(id, render_special_);
  if (bytes.empty()) return {};
  if (drop_space_ && bytes[0] == ' ') bytes.remove_prefix(1);
  drop_space_ = false;

  pending_.append(bytes);
  const size_t complete = pending_.size() - TruncatedTail(pending_);
  std::string text = ReplaceInvalidUtf8(std::string_view(pending_).substr(0, complete));
  pending_.erase(0, complete);
  return text;
}

std::string IncrementalDecoder::Flush() {
  std::string text = ReplaceInvalidUtf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace tandem
