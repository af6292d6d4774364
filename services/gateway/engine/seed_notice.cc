#include "services/gateway/engine/seed_notice.h"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>

namespace tandem::gateway {
namespace {

// A signal handler has no argument.
char notice[128];

// The handler is for once: abort() goes on to end the process.
void OnAbort(int) {
  if (write(STDERR_FILENO, notice, std::strlen(notice)) < 0) {
    // Nobody reads.
  }
}

}  // namespace

SeedNotice::SeedNotice(uint32_t seed, const char* options) {
  std::snprintf(notice, sizeof(notice), "in seed %u: repeat with tandem_sim%s --seed %u\n", seed,
                options, seed);
  std::signal(SIGABRT, OnAbort);
}

SeedNotice::~SeedNotice() { std::signal(SIGABRT, SIG_DFL); }

}  // namespace tandem::gateway
