#include "common/base/last_words.h"

#include <signal.h>
#include <unistd.h>

#include <new>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "gtest/gtest.h"

namespace tandem {
namespace {

const LastWords kWords = {.fd = STDERR_FILENO, .before = "tandem: ", .exit_code = 4};

TEST(LastWordsDeathTest, WantOfMemoryIsOneLineAndAnExitCode) {
  const auto end = [] {
    SetLastWords(kWords);
    std::thread([] { throw std::bad_alloc(); }).join();
  };
  EXPECT_EXIT(end(), testing::ExitedWithCode(4), "^tandem: memory ran out: .*\n$");
}

TEST(LastWordsDeathTest, WantOfThreadsToo) {
  const auto end = [] {
    SetLastWords(kWords);
    throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
  };
  const auto end_in_thread = [&] { std::thread(end).join(); };
  EXPECT_EXIT(end_in_thread(), testing::ExitedWithCode(4),
              "^tandem: a thread could not be started");
}

TEST(LastWordsDeathTest, AnythingElseAborts) {
  const auto end = [] {
    SetLastWords(kWords);
    std::thread([] { throw std::logic_error("a bug"); }).join();
  };
  EXPECT_EXIT(end(), testing::KilledBySignal(SIGABRT), "");
}

}  // namespace
}  // namespace tandem
