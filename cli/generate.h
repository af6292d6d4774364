// `tandem generate` and `tandem chat`.
#pragma once

#include <string>

#include "cli/request_options.h"

namespace tandem {

struct GenerateOptions {
  RequestOptions request;
  std::string prompt;    // "-": standard input
  std::string system;    // of a chat
  bool is_chat = false;  // the prompt is a user's message, not text to continue
};

// Streams one answer: standard output is the text alone, the closing line goes to
// standard error. An exit code.
int RunGenerate(const GenerateOptions& options);

// Reads messages from standard input and answers each, keeping the conversation, until
// the input ends. Ctrl-C stops the answer that is being made. An exit code.
int RunChat(const GenerateOptions& options);

}  // namespace tandem
