// `tandem doctor`.
#pragma once

#include <string>

namespace tandem {

struct DoctorOptions {
  std::string target;
  std::string draft;
  int port = 50051;
  std::string device = "cpu";
  bool show_fit = false;
};

// Checks the machine (processor, memory, shared memory, sockets, port) and, when they
// are named, a pair of models: one line each, ok or FAIL with what to do. With `show_fit`
// instead a table of cards and what fits them. An exit code.
int RunDoctor(const DoctorOptions& options);

}  // namespace tandem
