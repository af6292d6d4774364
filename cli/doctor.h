// `tandem doctor`.
#pragma once

#include <string>

namespace tandem {

struct DoctorOptions {
  std::string target;
  std::string draft;
  int port = 50051;
};

// Checks the machine (processor, memory, shared memory, sockets, port) and, when they
// are named, a pair of models: one line each, ok or FAIL with what to do. An exit code.
int RunDoctor(const DoctorOptions& options);

}  // namespace tandem
