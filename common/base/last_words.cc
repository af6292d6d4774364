#include "common/base/last_words.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <system_error>

namespace tandem {
namespace {

// A terminate handler has no argument. Set once, before threads start.
LastWords last_words;

// Memory may be gone: no allocation from here on.
void Say(const char* text) {
  if (write(last_words.fd, text, std::strlen(text)) < 0) {
    // Nobody reads; the exit code says it too.
  }
}

[[noreturn]] void EndWith(const char* cause) {
  Say(last_words.before);
  Say(cause);
  Say(last_words.after);
  _exit(last_words.exit_code);
}

[[noreturn]] void OnTerminate() {
  if (const std::exception_ptr exception = std::current_exception()) {
    try {
      std::rethrow_exception(exception);
    } catch (const std::bad_alloc&) {
      EndWith("memory ran out: allow more (ulimit -v, the container's limit) or use less of it");
    } catch (const std::system_error& error) {
      if (error.code() == std::errc::resource_unavailable_try_again) {
        EndWith(
            "a thread could not be started: allow more memory or threads (ulimit -v, ulimit -u, "
            "the container's pids limit)");
      }
    } catch (...) {
    }
  }
  std::abort();
}

}  // namespace

void SetLastWords(const LastWords& words) {
  last_words = words;
  std::set_terminate(OnTerminate);
}

}  // namespace tandem
