// The model as clients see it: its name, vocabulary and chat template.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/chat_template/chat_template.h"
#include "common/tokenizer/tokenizer.h"

namespace tandem::gateway {

// Immutable after Load; thread-safe.
class ServedModel {
 public:
  struct Source {
    std::string path;  // of the target's file
    std::string name;
    int32_t vocab_size = 0;   // rows of its output
    std::string fingerprint;  // as the target loaded it
  };
  // Reads the vocabulary and the template. INVALID_ARGUMENT or NOT_FOUND as GgufFile::Open
  // and Tokenizer::FromGguf; FAILED_PRECONDITION when the file is another one by now.
  static absl::StatusOr<std::unique_ptr<ServedModel>> Load(const Source& source);

  const std::string& name() const { return name_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  int32_t vocab_size() const { return vocab_size_; }
  // Ids from here on have no text and are never chosen; 0 when all have one.
  int32_t used_vocab_size() const {
    return tokenizer_->used_vocab_size() < vocab_size_ ? tokenizer_->used_vocab_size() : 0;
  }
  bool has_chat_template() const { return template_.has_value(); }
  absl::Span<const int32_t> end_token_ids() const { return end_token_ids_; }

  struct RenderedChat {
    std::string text;
    std::vector<int32_t> token_ids;
  };
  // The conversation as the model was trained to read it. FAILED_PRECONDITION when there is
  // no template or it refuses the conversation.
  absl::StatusOr<RenderedChat> RenderChat(absl::Span<const ChatMessage> messages,
                                          bool add_generation_prompt) const;

  struct EncodeTextOptions {
    bool add_bos = true;  // where the model wants one
    bool parse_special = false;
  };
  absl::StatusOr<std::vector<int32_t>> EncodeText(const std::string& text,
                                                  const EncodeTextOptions& options) const;

 private:
  ServedModel() = default;

  std::string name_;
  int32_t vocab_size_ = 0;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::optional<ChatTemplate> template_;
  absl::Status template_error_;  // why a template that is there cannot be used
  std::vector<int32_t> end_token_ids_;
};

}  // namespace tandem::gateway
