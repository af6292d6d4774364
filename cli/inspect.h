// `tandem inspect`.
#pragma once

#include <string>

namespace tandem {

// Prints what a GGUF file holds: its model, its vocabulary, each weight's stored and
// packed type, and what it takes in memory. An exit code.
int RunInspect(const std::string& path);

}  // namespace tandem
