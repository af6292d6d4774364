#include "cli/generate.h"

#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "cli/exit_codes.h"
#include "cli/session.h"
#include "common/rpc/status_convert.h"

namespace tandem {
namespace {

namespace v1 = gateway::v1;

void AddMessage(v1::Chat* chat, const std::string& role, const std::string& content) {
  v1::ChatMessage* message = chat->add_messages();
  message->set_role(role);
  message->set_content(content);
}

// A conversation gets no shorter by asking again.
absl::Status ForChat(const absl::Status& status) {
  if (rpc::DetailsOf(status).reason != "PROMPT_TOO_LONG") return status;
  return absl::InvalidArgumentError(
      absl::StrCat("the conversation is full (", status.message(), "): /reset begins a new one"));
}

}  // namespace

int RunGenerate(const GenerateOptions& options) {
  std::string prompt = options.prompt;
  if (prompt == "-") prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
  int exit_code = kExitFailure;
  absl::StatusOr<Session> session = OpenSession(options.request, &exit_code);
  if (!session.ok()) return Fail(static_cast<ExitCode>(exit_code), session.status());

  v1::GenerateRequest request = MakeRequest(options.request);
  if (options.is_chat) {
    if (!options.system.empty()) AddMessage(request.mutable_chat(), "system", options.system);
    AddMessage(request.mutable_chat(), "user", prompt);
  } else {
    request.set_prompt(prompt);
  }
  std::string text;
  absl::StatusOr<v1::Finished> finished = StreamAnswer(*session->client, request, &text);
  if (!finished.ok()) {
    const bool is_usage = absl::IsInvalidArgument(finished.status());
    return Fail(is_usage ? kExitUsage : kExitFailure, finished.status());
  }
  if (isatty(STDOUT_FILENO) == 1 && !text.empty() && text.back() != '\n') std::puts("");
  std::fprintf(stderr, "%s\n", ClosingLine(*finished).c_str());
  return kExitOk;
}

int RunChat(const GenerateOptions& options) {
  int exit_code = kExitFailure;
  absl::StatusOr<Session> session = OpenSession(options.request, &exit_code);
  if (!session.ok()) return Fail(static_cast<ExitCode>(exit_code), session.status());

  const bool is_terminal = isatty(STDIN_FILENO) == 1;
  if (is_terminal) std::fprintf(stderr, "chat   /reset forgets, /exit or Ctrl-D ends\n");
  v1::Chat chat;
  if (!options.system.empty()) AddMessage(&chat, "system", options.system);
  const v1::Chat empty_chat = chat;
  std::string line;
  while (true) {
    if (is_terminal) std::fprintf(stderr, "> ");
    if (!std::getline(std::cin, line) || line == "/exit") break;
    if (line == "/reset") chat = empty_chat;
    if (line.empty() || line == "/reset") continue;
    AddMessage(&chat, "user", line);
    v1::GenerateRequest request = MakeRequest(options.request);
    *request.mutable_chat() = chat;
    std::string text;
    absl::StatusOr<v1::Finished> finished = StreamAnswer(*session->client, request, &text);
    std::puts("");
    std::fflush(stdout);
    if (!finished.ok() && !absl::IsCancelled(finished.status())) {
      Fail(kExitFailure, ForChat(finished.status()));
      chat.mutable_messages()->RemoveLast();  // not answered: not part of the conversation
      continue;
    }
    AddMessage(&chat, "assistant", text);
    if (finished.ok()) std::fprintf(stderr, "%s\n", ClosingLine(*finished).c_str());
  }
  if (is_terminal) std::fprintf(stderr, "\n");
  return kExitOk;
}

}  // namespace tandem
