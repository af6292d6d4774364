// How a process ends that cannot get memory or a thread.
#pragma once

namespace tandem {

// One line on `fd`, `before` and `after` around the cause, and the exit code.
struct LastWords {
  int fd = 2;
  const char* before = "";
  const char* after = "\n";
  int exit_code = 1;
};

// From here on an exception that nobody catches ends the process so, where it is the standard
// library's for want of memory or threads (nothing of ours throws): no abort, no stack. Any other
// aborts as ever. The strings must live for ever. Once, before threads start.
void SetLastWords(const LastWords& words);

}  // namespace tandem
