#include "services/gateway/served_model.h"


#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/gguf/fingerprint.h"
#include "common/gguf/gguf.h"
#include "common/safetensors/checkpoint.h"

namespace tandem::gateway {
namespace {

constexpr char kTemplateKey[] = "tokenizer.chat_template";

std::string SpecialText(const Tokenizer& tokenizer, int32_t id) {
  return id < 0 ? std::string() : std::string(tokenizer.TokenText(id));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServedModel>> ServedModel::Load(const Source& source) {
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, OpenModel(source.path));
  if (ModelFingerprint(*file) != source.fingerprint) {
    return absl::FailedPreconditionError(
        absl::StrCat(source.path, " has changed since the target loaded it: restart the target"));
  }
  std::unique_ptr<ServedModel> model(new ServedModel());
  model->name_ = source.name;
  model->vocab_size_ = source.vocab_size;
  ASSIGN_OR_RETURN(model->tokenizer_, Tokenizer::FromGguf(*file));
  if (model->tokenizer_->vocab_size() > source.vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrCat(source.path, ": the vocabulary has ", model->tokenizer_->vocab_size(),
                     " tokens, the model's output ", source.vocab_size));
  }
  for (int32_t id = 0; id < model->tokenizer_->vocab_size(); ++id) {
    if (model->tokenizer_->IsEndOfGeneration(id)) model->end_token_ids_.push_back(id);
  }
  if (file->FindValue(kTemplateKey) != nullptr) {
    ASSIGN_OR_RETURN(const std::string_view text, file->GetString(kTemplateKey));
    absl::StatusOr<ChatTemplate> parsed = ChatTemplate::Parse(text);
    if (parsed.ok()) {
      model->template_ = *std::move(parsed);
    } else {
      model->template_error_ = parsed.status();
    }
  }
  return model;
}

absl::StatusOr<ServedModel::RenderedChat> ServedModel::RenderChat(
    absl::Span<const ChatMessage> messages, bool add_generation_prompt) const {
  if (!template_.has_value()) {
    return absl::FailedPreconditionError(
        template_error_.ok() ? "the model file has no chat template: send a prompt or token_ids"
                             : absl::StrCat("the model's chat template cannot be used: ",
                                            template_error_.message()));
  }
  ASSIGN_OR_RETURN(RenderedPrompt prompt,
                   template_->Render({.messages = messages,
                                      .add_generation_prompt = add_generation_prompt,
                                      .bos_token = SpecialText(*tokenizer_, tokenizer_->bos_id()),
                                      .eos_token = SpecialText(*tokenizer_, tokenizer_->eos_id()),
                                      .now = absl::Now()}));
  std::vector<ByteSpan> spans;
  spans.reserve(prompt.content_spans.size());
  for (const ContentSpan& span : prompt.content_spans) spans.push_back({span.begin, span.end});
  // The template writes the beginning-of-sequence token itself, where the model wants one.
  ASSIGN_OR_RETURN(
      std::vector<int32_t> ids,
      tokenizer_->EncodeWithContent(prompt.text, spans, {.special = SpecialTokens::kParse}));
  return RenderedChat{std::move(prompt.text), std::move(ids)};
}

absl::StatusOr<std::vector<int32_t>> ServedModel::EncodeText(
    const std::string& text, const EncodeTextOptions& options) const {
  return tokenizer_->Encode(
      text, {.add_bos = options.add_bos && tokenizer_->add_bos() && tokenizer_->bos_id() >= 0,
             .special = options.parse_special ? SpecialTokens::kParse : SpecialTokens::kAsText});
}

}  // namespace tandem::gateway
