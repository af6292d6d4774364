// `tandem tokenize`.
#pragma once

#include <string>

namespace tandem {

struct TokenizeOptions {
  std::string model;
  bool is_by_line = false;  // each line by itself, without its newline
  bool add_bos = false;
  bool parse_special = false;
};

// Prints the ids of standard input, separated by spaces: one line in all, or one for
// each line of input. An exit code.
int RunTokenize(const TokenizeOptions& options);

}  // namespace tandem
