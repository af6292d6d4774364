#include "cli/usage_error.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace tandem {
namespace {

// Letters to insert, delete or replace to get from one to the other (Levenshtein 1966).
size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, replaced});
    }
  }
  return row.back();
}

// ", did you mean 'serve'?"; empty when nothing is near.
std::string Suggestion(const std::string& name, const std::vector<std::string>& known) {
  std::string nearest;
  size_t least = name.size() / 3 + 1;
  for (const std::string& candidate : known) {
    const size_t distance = EditDistance(name, candidate);
    if (distance > least || (distance == least && !nearest.empty())) continue;
    least = distance;
    nearest = candidate;
  }
  return nearest.empty() ? "" : ", did you mean '" + nearest + "'?";
}

// The command as far as it was understood.
const CLI::App& Innermost(const CLI::App& app) {
  const std::vector<CLI::App*> parsed = app.get_subcommands();
  return parsed.empty() ? app : Innermost(*parsed.front());
}

// "tandem eval".
std::string NameOf(const CLI::App& app) {
  std::string name = app.get_name();
  for (const CLI::App* parsed : app.get_subcommands()) name += " " + NameOf(*parsed);
  return name;
}

std::string UnknownCommand(const std::string& name, const CLI::App& app) {
  std::vector<std::string> known;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    known.push_back(command->get_name());
  }
  return "there is no command '" + name + "'" + Suggestion(name, known);
}

// CLI11 names all that is left, in reverse; the first option of it is what is wrong.
std::string UnknownArgument(const CLI::App& app) {
  const std::vector<std::string> left = app.remaining(/*recurse=*/true);
  const auto is_option = [](const std::string& text) { return text.size() > 1 && text[0] == '-'; };
  const auto found = std::find_if(left.begin(), left.end(), is_option);
  if (found == left.end()) return "'" + left.front() + "' was not expected";
  const std::string name = found->substr(0, found->find('='));
  std::vector<std::string> known;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& long_name : option->get_lnames()) known.push_back("--" + long_name);
  }
  return "there is no option '" + name + "'" + Suggestion(name, known);
}

std::string What(const CLI::App& app, const CLI::ParseError& error, int argc,
                 const char* const* argv) {
  const CLI::App& command = Innermost(app);
  const bool has_commands = !command.get_subcommands([](const CLI::App*) { return true; }).empty();
  const std::vector<std::string> left = command.remaining();
  if (&command == &app && argc > 1 && argv[1][0] != '-') return UnknownCommand(argv[1], app);
  if (left.empty()) return error.what();
  if (has_commands && left.front()[0] != '-') return UnknownCommand(left.front(), command);
  return UnknownArgument(command);
}

}  // namespace

std::string UsageMessage(const CLI::App& app, const CLI::ParseError& error, int argc,
                         const char* const* argv) {
  return What(app, error, argc, argv) + ": see `" + NameOf(app) + " --help`";
}

}  // namespace tandem
