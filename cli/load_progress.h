// How far a load test is, for who watches or reads its log.
#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace tandem {

// Not thread-safe.
class LoadProgress {
 public:
  // `now` is when the test begins.
  LoadProgress(int32_t num_requests, bool is_terminal, absl::Time now);

  // What to write when so many are over: on a terminal the line again in its place, elsewhere a
  // new one every ten seconds and at the end. Empty: nothing.
  std::string Update(int32_t num_over, absl::Time now);

 private:
  const int32_t num_requests_;
  const bool is_terminal_;
  const absl::Time begin_;
  absl::Time last_line_;
};

}  // namespace tandem
