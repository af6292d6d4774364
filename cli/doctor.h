// `tandem doctor`.
#pragma once

#include <cstdint>
#include <string>

namespace tandem {

struct DoctorOptions {
  std::string target;
  std::string draft;
  std::string device = "cpu";     // whether the models fit it
  int64_t vram_budget_bytes = 0;  // of a card, which need not be in this machine; 0: this one's
  int port = 50051;
  bool show_fit = false;
};

// Checks the machine (processor, memory, shared memory, sockets, port) and, when they are
// named, models: whether they fit, whether the vocabularies agree, what the draft may gain.
// One line each, ok or FAIL with what to do. With `show_fit` instead a table of cards and what
// fits them. An exit code.
int RunDoctor(const DoctorOptions& options);

}  // namespace tandem
