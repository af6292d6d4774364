#include "common/chat_template/chat_template.h"

#include <algorithm>
#include <utility>

#include "common/base/status_macros.h"
#include "common/chat_template/ast.h"
#include "common/chat_template/evaluator.h"
#include "common/chat_template/parser.h"
#include "common/chat_template/runtime.h"

namespace tandem {
namespace {

using jinja::Text;
using jinja::Value;

// No tokenizer has a special token of these characters alone.
bool IsPlainRole(std::string_view role) {
  return std::all_of(role.begin(), role.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
  });
}

Value TextValue(std::string_view bytes, bool from_content) {
  return Value(std::make_shared<const Text>(bytes, from_content));
}

// A list of dicts, as transformers passes a conversation.
absl::StatusOr<Value> Conversation(jinja::Runtime& runtime,
                                   absl::Span<const ChatMessage> messages) {
  std::vector<Value> list;
  list.reserve(messages.size());
  for (const ChatMessage& message : messages) {
    ASSIGN_OR_RETURN(
        Value dict,
        MakeDict(runtime,
                 {{Value::OfText("role"), TextValue(message.role, !IsPlainRole(message.role))},
                  {Value::OfText("content"), TextValue(message.content, true)}}));
    list.push_back(std::move(dict));
  }
  return MakeList(runtime, std::move(list));
}

}  // namespace

ChatTemplate::ChatTemplate(std::shared_ptr<const jinja::Program> program)
    : program_(std::move(program)) {}

absl::StatusOr<ChatTemplate> ChatTemplate::Parse(std::string_view source) {
  ASSIGN_OR_RETURN(jinja::Program program, jinja::ParseProgram(source));
  return ChatTemplate(std::make_shared<const jinja::Program>(std::move(program)));
}

absl::StatusOr<RenderedPrompt> ChatTemplate::Render(const RenderInput& input) const {
  jinja::Runtime runtime;
  runtime.now = input.now;
  jinja::Scope variables;
  ASSIGN_OR_RETURN(variables["messages"], Conversation(runtime, input.messages));
  variables["add_generation_prompt"] = Value(input.add_generation_prompt);
  variables["bos_token"] = Value::OfText(input.bos_token);
  variables["eos_token"] = Value::OfText(input.eos_token);
  variables["tools"] = Value();
  variables["documents"] = Value();
  Text out;
  RETURN_IF_ERROR(jinja::Evaluator(runtime, std::move(variables)).Run(*program_, out));
  return RenderedPrompt{.text = out.bytes(), .content_spans = out.spans()};
}

}  // namespace tandem
