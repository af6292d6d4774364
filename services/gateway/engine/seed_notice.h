// Which run it was, when a check ends the process in the middle of it.
#pragma once

#include <cstdint>

namespace tandem::gateway {

// While it lives, an abort says on standard error how to repeat the run. One at a time.
class SeedNotice {
 public:
  // `options` are those of tandem_sim beside the seed, each after a space.
  explicit SeedNotice(uint32_t seed, const char* options = "");
  ~SeedNotice();
  SeedNotice(const SeedNotice&) = delete;
};

}  // namespace tandem::gateway
