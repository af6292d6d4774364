#include "cli/bench_serve.h"

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "cli/exit_codes.h"
#include "cli/load_progress.h"
#include "cli/session.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"

namespace tandem {
namespace {

namespace v1 = gateway::v1;

constexpr char kLengthsHelp[] = "N, LOW:HIGH evenly, or lognormal:MEAN:LOW:HIGH clipped";

absl::StatusOr<std::vector<std::string>> ReadLines(const std::string& path) {
  std::vector<std::string> lines;
  if (path.empty()) return lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  if (lines.empty()) return absl::NotFoundError(absl::StrCat("no prompts in ", path));
  return lines;
}

std::string SettingsOf(const BenchServeOptions& options, const v1::GetModelResponse& model) {
  const LoadOptions& load = options.load;
  return nlohmann::json({{"model", model.model()},
                         {"draft", model.draft().name()},
                         {"speculation", options.request.speculation},
                         {"requests", load.num_requests},
                         {"rate", load.rate},
                         {"concurrency", MostInFlight(load)},
                         {"prompt_tokens", options.prompt_tokens},
                         {"output_tokens", options.output_tokens},
                         {"shared_prefixes", load.num_shared_prefixes},
                         {"shared_prefix_tokens", load.shared_prefix_tokens},
                         {"texts", options.texts_file},
                         {"seed", load.seed},
                         {"slo_ttft_ms", options.slo_first_token_ms},
                         {"slo_tpot_ms", options.slo_output_token_ms}})
      .dump();
}

absl::Status Run(const BenchServeOptions& options, GatewayClient& client) {
  ASSIGN_OR_RETURN(const v1::GetModelResponse model, client.GetModel(absl::Seconds(10)));
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, ReadLines(options.texts_file));
  v1::GenerateRequest prototype = MakeRequest(options.request);
  prototype.mutable_output()->set_token_ids(true);
  // Ids at the end of a vocabulary are often special or unused.
  const int32_t num_ids = std::max(1, model.vocabulary_size() * 9 / 10);
  LoadOptions warmup = options.load;
  warmup.num_requests = options.num_warmup;
  warmup.rate = 0.0;
  warmup.seed = options.load.seed + 1;  // other tokens: nothing of the test is cached
  const GenerateCall generate = [&](const v1::GenerateRequest& request, const auto& on_event) {
    return client.Generate(request, on_event);
  };
  RunLoad(generate, warmup, PlanLoad(warmup, prototype, num_ids, texts), [](int32_t) {});
  const std::vector<PlannedRequest> plan = PlanLoad(options.load, prototype, num_ids, texts);
  LoadProgress progress(options.load.num_requests, isatty(STDERR_FILENO) == 1, SteadyNow());
  const std::vector<RequestRecord> records =
      RunLoad(generate, options.load, plan, [&](int32_t num_over) {
        std::fprintf(stderr, "%s", progress.Update(num_over, SteadyNow()).c_str());
      });
  const LoadReport report = MakeLoadReport(
      records, {.time_to_first_token = absl::Milliseconds(options.slo_first_token_ms),
                .time_per_output_token = absl::Milliseconds(options.slo_output_token_ms)});
  std::printf("%s", ToMarkdown(report).c_str());
  if (!options.json_file.empty()) {
    std::ofstream file(options.json_file);
    file << ToJson(report, records, SettingsOf(options, model)) << "\n";
    if (!file.good()) return absl::UnknownError(absl::StrCat("cannot write ", options.json_file));
  }
  return report.first_failure;
}

}  // namespace

void AddBenchServeOptions(CLI::App& command, BenchServeOptions& options) {
  AddRequestOptions(command, options.request);
  LoadOptions& load = options.load;
  command.add_option("--requests", load.num_requests, "requests to send")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command.add_option("--rate", load.rate, "open loop: Poisson arrivals in a second; 0: closed")
      ->check(CLI::NonNegativeNumber);
  command
      .add_option("--concurrency", load.concurrency,
                  absl::StrCat("requests at a time, else ", kClosedConcurrency,
                               "; open loop: at most, else ", kMaxConcurrency,
                               ", and what is beyond is not sent"))
      ->check(CLI::Range(1, kMaxConcurrency));
  command.add_option("--prompt-tokens", options.prompt_tokens, kLengthsHelp)->capture_default_str();
  command.add_option("--output-tokens", options.output_tokens, kLengthsHelp)->capture_default_str();
  command
      .add_option("--shared-prefix-tokens", load.shared_prefix_tokens,
                  "tokens that prompts begin with in common")
      ->check(CLI::Range(0, 1 << 20));
  command.add_option("--shared-prefixes", load.num_shared_prefixes, "different ones of them")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command.add_option("--texts", options.texts_file,
                     "prompts, one a line, as chats; else random tokens");
  command.add_option("--load-seed", load.seed, "of arrivals, lengths and tokens")
      ->capture_default_str();
  command.add_option("--warmup", options.num_warmup, "requests before the test")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  command.add_option("--slo-ttft-ms", options.slo_first_token_ms,
                     "a good answer's time to its first token, or to an end without any; 0: any");
  command.add_option("--slo-tpot-ms", options.slo_output_token_ms,
                     "a good request's time per output token; 0: any");
  command.add_option("--json", options.json_file, "file for all figures, see tools/plot_load.py");
}

int RunBenchServe(BenchServeOptions options) {
  const auto prompt = ParseTokenLengths(options.prompt_tokens);
  const auto output = ParseTokenLengths(options.output_tokens);
  if (!prompt.ok()) return Fail(kExitUsage, prompt.status());
  if (!output.ok()) return Fail(kExitUsage, output.status());
  options.load.prompt_tokens = *prompt;
  options.load.output_tokens = *output;
  int exit_code = kExitFailure;
  absl::StatusOr<Session> session = OpenSession(options.request, &exit_code);
  if (!session.ok()) return Fail(static_cast<ExitCode>(exit_code), session.status());
  const absl::Status status = Run(options, *session->client);
  return status.ok() ? kExitOk : Fail(kExitFailure, status);
}

}  // namespace tandem
