// What the processes of Tandem exit with. The numbers are documented; never re-used.
#pragma once

#include "absl/status/status.h"

namespace tandem {

enum ExitCode : int {
  kExitOk = 0,
  kExitFailure = 1,    // a request failed, or a check of `doctor`
  kExitUsage = 2,      // flags or arguments
  kExitModelFile = 3,  // a model file cannot be read or does not fit its use
  kExitMemory = 4,     // memory, threads or device
  kExitPort = 5,       // a port or socket is taken or cannot be reached
  kExitCrashLoop = 6,  // a worker died again and again
  kExitDevice = 7,     // the GPU failed under a worker that ran
};

// Prints "tandem: message" to standard error, one line, and gives `code` back.
int Fail(ExitCode code, const absl::Status& status);

}  // namespace tandem
