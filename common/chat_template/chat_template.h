// Chat templates: the Jinja programs that models carry to lay out a conversation.
//
// A template comes with a model file and is trusted no more than the file: it has no
// access to anything but its input, and source, steps, depth, strings, lists and
// output are bounded (limits.h). What it renders equals, byte for byte, what Python's
// jinja2 renders as transformers sets it up: sandboxed, trim_blocks, lstrip_blocks,
// loop controls, `raise_exception`, `strftime_now`, and transformers' `tojson`.
// docs/chat-templates.md lists the language and where it differs.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/chat_template/content_span.h"

namespace tandem {

struct ChatMessage {
  std::string role;
  std::string content;
};

struct RenderInput {
  absl::Span<const ChatMessage> messages;
  bool add_generation_prompt = true;
  std::string bos_token;
  std::string eos_token;
  absl::Time now;  // for strftime_now, in the machine's time zone
};

struct RenderedPrompt {
  std::string text;
  // The parts of `text` that came from messages, ascending and apart; text of special
  // tokens inside them was typed by a user and is to stay text. Where a template
  // changes content so that the origin of single bytes is lost, the span covers all of
  // the result. A role of letters, digits, '-' and '_' alone counts as the template's.
  std::vector<ContentSpan> content_spans;
};

namespace jinja {
struct Program;
}

// A parsed template. Immutable and thread-safe; copies share the program.
class ChatTemplate {
 public:
  // INVALID_ARGUMENT with the line when `source` is not a template, is too large, or
  // uses a statement that is not supported.
  static absl::StatusOr<ChatTemplate> Parse(std::string_view source);

  // FAILED_PRECONDITION with the line when the template raises an exception (as many
  // do for roles in the wrong order), uses something undefined, or hits a limit.
  absl::StatusOr<RenderedPrompt> Render(const RenderInput& input) const;

 private:
  explicit ChatTemplate(std::shared_ptr<const jinja::Program> program);

  std::shared_ptr<const jinja::Program> program_;
};

}  // namespace tandem
