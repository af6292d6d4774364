// `tandem serve`.
#pragma once

#include "cli/serve_options.h"

namespace tandem {

// Prints the plan, starts the processes, says `ready`, and watches over them until
// SIGINT or SIGTERM. An exit code.
int RunServe(const ServeOptions& options);

}  // namespace tandem
