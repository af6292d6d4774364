// `tandem bench serve`: load on a server, and what its clients saw.
#pragma once

#include <string>

#include "CLI/CLI.hpp"
#include "cli/load_generator.h"
#include "cli/request_options.h"

namespace tandem {

struct BenchServeOptions {
  RequestOptions request;
  LoadOptions load;
  std::string prompt_tokens = "128";  // as ParseTokenLengths() reads them
  std::string output_tokens = "64";
  std::string texts_file;  // a prompt a line, as chats; empty: random tokens
  int32_t num_warmup = 2;
  double slo_first_token_ms = 0.0;
  double slo_output_token_ms = 0.0;
  std::string json_file;
};

void AddBenchServeOptions(CLI::App& command, BenchServeOptions& options);

// The report in Markdown on standard output, progress on standard error.
int RunBenchServe(BenchServeOptions options);

}  // namespace tandem
