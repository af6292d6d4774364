// The `tandem` command.
#include <cstdio>
#include <functional>
#include <string>

#include "CLI/CLI.hpp"
#include "cli/bench_serve.h"
#include "cli/doctor.h"
#include "cli/eval.h"
#include "cli/exit_codes.h"
#include "cli/generate.h"
#include "cli/health.h"
#include "cli/inspect.h"
#include "cli/serve.h"
#include "cli/tokenize.h"
#include "cli/usage_error.h"
#include "common/base/last_words.h"

namespace {

using Run = std::function<int()>;

void AddServe(CLI::App& app, tandem::ServeOptions& options, Run& run) {
  CLI::App* command = app.add_subcommand("serve", "start the server");
  tandem::AddServeOptions(*command, options);
  command->callback([&] { run = [&options] { return tandem::RunServe(options); }; });
}

void AddGenerate(CLI::App& app, tandem::GenerateOptions& options, Run& run) {
  CLI::App* generate = app.add_subcommand("generate", "stream the continuation of a prompt");
  generate->add_option("--prompt", options.prompt, "the text; - reads standard input")->required();
  generate->add_flag("--chat", options.is_chat, "the prompt is a message to a chat model");
  generate->add_option("--system", options.system, "system message; implies --chat");
  tandem::AddRequestOptions(*generate, options.request);
  generate->callback([&] {
    options.is_chat = options.is_chat || !options.system.empty();
    run = [&options] { return tandem::RunGenerate(options); };
  });
}

void AddChat(CLI::App& app, tandem::GenerateOptions& options, Run& run) {
  CLI::App* chat = app.add_subcommand("chat", "talk; the conversation is kept");
  chat->add_option("--system", options.system, "system message");
  tandem::AddRequestOptions(*chat, options.request);
  chat->callback([&] { run = [&options] { return tandem::RunChat(options); }; });
}

void AddFileCommands(CLI::App& app, std::string& file, tandem::TokenizeOptions& tokenize,
                     Run& run) {
  CLI::App* inspect = app.add_subcommand("inspect", "show what a GGUF file holds");
  inspect->add_option("file", file, "GGUF file")->required();
  inspect->callback([&] { run = [&file] { return tandem::RunInspect(file); }; });

  CLI::App* command = app.add_subcommand("tokenize", "print the token ids of standard input");
  command->add_option("--model", tokenize.model, "GGUF file; a vocabulary is enough")->required();
  command->add_flag("--lines", tokenize.is_by_line, "each line by itself, one result a line");
  command->add_flag("--bos", tokenize.add_bos, "begin with the beginning-of-sequence token");
  command->add_flag("--special", tokenize.parse_special, "read special tokens as tokens");
  command->callback([&] { run = [&tokenize] { return tandem::RunTokenize(tokenize); }; });
}

void AddDoctor(CLI::App& app, tandem::DoctorOptions& options, Run& run) {
  CLI::App* command = app.add_subcommand("doctor", "check this machine and a pair of models");
  command->add_option("--target", options.target, "GGUF of the large model");
  command->add_option("--draft", options.draft, "GGUF of the small model");
  command->add_option("--port", options.port, "port the server would use")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command->add_option("--device", options.device, "where the models would run: cpu, cuda or cuda:N")
      ->capture_default_str();
  command
      ->add_option("--vram-budget", options.vram_budget_bytes,
                   "memory of a card, e.g. 8GiB, in this machine or not")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
  command->add_flag("--fit", options.show_fit,
                    "a table instead: cards, and the tokens of KV that fit beside these models, or "
                    "beside well-known ones");
  command->callback([&] { run = [&options] { return tandem::RunDoctor(options); }; });
}

void AddHealth(CLI::App& app, tandem::HealthOptions& options, Run& run) {
  CLI::App* command = app.add_subcommand("health", "tell by the exit code if a server is ready");
  command->add_option("--endpoint", options.endpoint, "host:port or unix:/path")
      ->capture_default_str();
  command->add_flag("--live", options.is_live_enough, "any answer will do, as while it starts");
  command->add_option("--tls-ca", options.security.tls.ca, "TLS: PEM of who signs the server");
  command->add_option("--tls-cert", options.security.tls.certificate, "TLS: PEM of our own chain");
  command->add_option("--tls-key", options.security.tls.key, "TLS: PEM of its key");
  command->add_option("--timeout", options.timeout_s, "seconds")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  command->callback([&] { run = [&options] { return tandem::RunHealth(options); }; });
}

void AddBench(CLI::App& app, tandem::BenchServeOptions& options, Run& run) {
  CLI::App* bench = app.add_subcommand("bench", "measure speed");
  bench->require_subcommand(1);
  CLI::App* command = bench->add_subcommand("serve", "load on a server, as its clients see it");
  tandem::AddBenchServeOptions(*command, options);
  command->callback([&] { run = [&options] { return tandem::RunBenchServe(options); }; });
}

void AddEval(CLI::App& app, tandem::PerplexityCommand& options, Run& run) {
  CLI::App* eval = app.add_subcommand("eval", "measure quality");
  eval->require_subcommand(1);
  CLI::App* command = eval->add_subcommand("perplexity", "of a text, scored in windows");
  command->add_option("--model", options.model, "GGUF file")->required();
  command->add_option("--file", options.file, "text file")->required();
  command->add_option("--ctx", options.context_tokens, "tokens of a window")
      ->check(CLI::Range(8, 1 << 20))
      ->capture_default_str();
  command->add_option("--kv", options.kv_type, "KV cache")
      ->check(CLI::IsMember({"f16", "q8", "q4"}))
      ->capture_default_str();
  command->add_option("--threads", options.threads, "0: all cores")->check(CLI::Range(0, 256));
  command->callback([&] { run = [&options] { return tandem::RunPerplexity(options); }; });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Tandem serves a large language model with speculative decoding.", "tandem");
  app.require_subcommand(1);
  app.set_version_flag("--version", "tandem " TANDEM_VERSION);
  app.footer(
      "Exit codes: 1 failed, 2 usage, 3 model file, 4 memory, threads or device, 5 port or "
      "socket, 6 worker crash loop.");
  tandem::ServeOptions serve;
  tandem::GenerateOptions generate, chat;
  tandem::TokenizeOptions tokenize;
  tandem::DoctorOptions doctor;
  tandem::HealthOptions health;
  tandem::BenchServeOptions bench;
  tandem::PerplexityCommand perplexity;
  std::string file;
  Run run;
  AddServe(app, serve, run);
  AddGenerate(app, generate, run);
  AddChat(app, chat, run);
  AddFileCommands(app, file, tokenize, run);
  AddDoctor(app, doctor, run);
  AddHealth(app, health, run);
  AddEval(app, perplexity, run);
  AddBench(app, bench, run);
  tandem::SetLastWords({.before = "tandem: ", .exit_code = tandem::kExitMemory});
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::fprintf(stderr, "tandem: %s\n", tandem::UsageMessage(app, error, argc, argv).c_str());
    return tandem::kExitUsage;
  }
  return run();
}
