// What a person sees while the models load.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/time/time.h"

namespace tandem {

// A bar on a terminal, redrawn in place; elsewhere one line for each tenth. Writes to
// standard error. One bar for each name. Not thread-safe.
class ProgressBar {
 public:
  ProgressBar();

  void Update(const std::string& name, int64_t done_bytes, int64_t total_bytes);

 private:
  struct Bar {
    absl::Time started_at;
    int last_tenth = -1;
    bool is_done = false;
  };

  void DrawBar(const std::string& name, const Bar& bar, int64_t done_bytes, int64_t total_bytes);

  bool is_terminal_;
  std::map<std::string, Bar> bars_;
};

}  // namespace tandem
