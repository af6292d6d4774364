#include "common/base/random.h"

#include <sys/random.h>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace tandem {

uint64_t RandomNumber() {
  uint64_t number = 0;
  if (getrandom(&number, sizeof(number), 0) != sizeof(number)) {
    number = static_cast<uint64_t>(absl::ToUnixNanos(absl::Now())) * 0x9e3779b97f4a7c15;
  }
  return number;
}

}  // namespace tandem
