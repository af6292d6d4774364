#include "cli/exit_codes.h"

#include <cstdio>
#include <string>

namespace tandem {

int Fail(ExitCode code, const absl::Status& status) {
  std::fprintf(stderr, "tandem: %s\n", std::string(status.message()).c_str());
  return code;
}

}  // namespace tandem
