// What is wrong with a command line.
#pragma once

#include <string>

#include "CLI/CLI.hpp"

namespace tandem {

// One line for `error`, which parsing `argv` for `app` threw: the command or option that is
// not known with the nearest that is, or what CLI11 says; and where there is help.
std::string UsageMessage(const CLI::App& app, const CLI::ParseError& error, int argc,
                         const char* const* argv);

}  // namespace tandem
