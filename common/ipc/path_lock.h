// One process for each socket path.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/ipc/owned_fd.h"

namespace tandem {

// Holds "<path>.lock" as long as the result lives, and no longer than the process: a
// lock of a dead process is free. FAILED_PRECONDITION when another holds it, UNAVAILABLE
// when the file cannot be made.
absl::StatusOr<OwnedFd> LockPath(const std::string& path);

}  // namespace tandem
