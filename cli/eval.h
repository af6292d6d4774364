// `tandem eval perplexity`.
#pragma once

#include <cstdint>
#include <string>

namespace tandem {

struct PerplexityCommand {
  std::string model;
  std::string file;
  int32_t context_tokens = 512;
  std::string kv_type = "f16";
  int32_t threads = 0;
};

// Scores the second half of each window of `context_tokens`, as llama.cpp does, and
// prints the perplexity with its standard error. An exit code.
int RunPerplexity(const PerplexityCommand& options);

}  // namespace tandem
