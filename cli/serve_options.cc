#include "cli/serve_options.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/worker/worker_options.h"

namespace tandem {

namespace {

void AddDeviceOptions(CLI::App& command, ServeOptions& options) {
  command.add_option("--device", options.device, "where the models run: cpu, cuda or cuda:N")
      ->check([](const std::string& device) {
        const auto number = worker::ParseDevice(device);
        return number.ok() ? std::string() : std::string(number.status().message());
      })
      ->capture_default_str();
  command
      .add_option("--vram-budget", options.vram_budget_bytes,
                  "device memory for all of Tandem, e.g. 8GiB; 0: what is free")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
  command
      .add_option("--mps", options.mps,
                  "NVIDIA's multi-process service, a private one for target and draft")
      ->check(CLI::IsMember({"auto", "on", "off"}))
      ->capture_default_str();
  command
      .add_option("--pool-transport", options.pool_transport,
                  "how the draft gets at the target's pages on a GPU")
      ->check(CLI::IsMember({"auto", "ipc", "fd", "split"}))
      ->capture_default_str();
  command
      .add_option("--embedding", options.embedding,
                  "where the embedding table is on a GPU, unless it is the head as well: pinned "
                  "host memory, or the device")
      ->check(CLI::IsMember({"host", "device"}))
      ->capture_default_str();
  command.add_flag("--nf4", options.quantize_to_nf4, "16-bit weights to NF4 when loaded (cuda)");
}

void AddDeviceArguments(const ServeOptions& options, int64_t budget_bytes, bool is_target,
                        std::vector<std::string>* argv) {
  if (options.device == "cpu") return;
  argv->insert(argv->end(), {"--device", options.device});
  if (budget_bytes > 0) {
    argv->insert(argv->end(), {"--vram-budget", absl::StrCat(budget_bytes)});
  }
  if (options.quantize_to_nf4) argv->push_back("--nf4");
  argv->insert(argv->end(), {"--embedding", options.embedding});
  if (is_target) argv->insert(argv->end(), {"--pool-transport", options.pool_transport});
}

void AddScheduling(CLI::App& command, ServeOptions& options) {
  command.add_option("--max-running", options.max_running, "requests in a step at once")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command.add_option("--max-waiting", options.max_waiting, "requests in the queue at most")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str();
  command
      .add_option("--max-requests-per-client", options.max_requests_per_client,
                  "of one API key or address, running and waiting; 0: no limit (default: three "
                  "quarters of --max-running and --max-waiting together)")
      ->check(CLI::Range(0, 100000));
  command
      .add_option("--max-queued-tokens", options.max_queued_tokens,
                  "prompt tokens, running and waiting; 0: 16 page pools full")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  command
      .add_option("--slow-client-timeout", options.slow_client_timeout_s,
                  "seconds for a client that does not read")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  command
      .add_option("--stream-messages", options.stream_messages,
                  "messages a second of all streams: where steps make more, tokens of several "
                  "travel together; 0: no limit")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  command
      .add_option("--stream-interval", options.stream_interval_s,
                  "seconds between messages of a stream at least, however few there are")
      ->check(CLI::Range(0.0, 10.0))
      ->capture_default_str();
  command
      .add_option("--prefill-stretch", options.prefill_stretch,
                  "how many times longer a prompt may make the steps of others")
      ->check(CLI::Range(1.0, 1000.0))
      ->capture_default_str();
  command
      .add_option("--pipelining", options.pipelining,
                  "drafts for one half of a batch beside the verify of the other; auto: on a GPU, "
                  "where it measures faster")
      ->check(CLI::IsMember({"auto", "on", "off"}))
      ->capture_default_str();
  command.add_flag("!--no-prefix-cache", options.prefix_cache,
                   "run every prompt from its start, keep no pages of others");
}

}  // namespace

void AddServeOptions(CLI::App& command, ServeOptions& options) {
  command.add_option("--target", options.target,
                     "GGUF of the large model (default: the pair of scripts/demo)");
  CLI::Option* draft = command.add_option("--draft", options.draft, "GGUF of the small model");
  command.add_flag("--no-draft", options.no_draft, "no draft model: plain and lookup decoding")
      ->excludes(draft);
  AddDeviceOptions(command, options);
  command.add_option("--listen", options.listen, "host:port or unix:/path of the service")
      ->capture_default_str();
  command.add_option("--tls-cert", options.security.tls.certificate,
                     "PEM of the server's certificate chain");
  command.add_option("--tls-key", options.security.tls.key, "PEM of its key");
  command.add_option("--tls-ca", options.security.tls.ca,
                     "PEM of who signs clients: they must show a certificate");
  command.add_flag("--insecure", options.security.allow_plaintext,
                   "plaintext also beyond this machine");
  command.add_option("--metrics-listen", options.metrics_listen, "host:port of /metrics")
      ->capture_default_str();
  command.add_option("--socket-dir", options.socket_dir, "folder of the workers' sockets");
  command.add_option("--kv", options.target_kv, "KV cache of the target")
      ->check(CLI::IsMember({"f16", "q8", "q4"}))
      ->capture_default_str();
  command.add_option("--draft-kv", options.draft_kv, "KV cache of the draft")
      ->check(CLI::IsMember({"f16", "q8", "q4"}))
      ->capture_default_str();
  command
      .add_option("--ctx", options.context_tokens,
                  "largest prompt plus output; 0: the model's, at most 8192")
      ->check(CLI::Range(0, 1 << 24));
  command
      .add_option("--kv-tokens", options.kv_tokens,
                  "positions of target KV in the page pool; 0: four contexts")
      ->check(CLI::Range(0, std::numeric_limits<int32_t>::max()));
  command
      .add_option("--swap-space", options.swap_bytes,
                  "host memory in which KV pages of preempted requests wait, at most a quarter of "
                  "what is free; 1GiB on a GPU unless said, 0 on the CPU, where more --kv-tokens "
                  "serve better")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
  command.add_option("--threads", options.threads, "threads of each worker; 0: all cores")
      ->check(CLI::Range(0, 256));
  AddScheduling(command, options);
  command
      .add_option("--drain-timeout", options.drain_timeout_s,
                  "seconds for running requests after SIGTERM")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  command.add_option("--log-level", options.log_level, "what the processes log")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  command.add_flag("--dry-run", options.dry_run, "print the plan and stop");
}

namespace {

void AddSecurity(const rpc::ServerSecurity& security, std::vector<std::string>* argv) {
  const std::pair<const char*, const std::string&> files[] = {
      {"--tls-cert", security.tls.certificate},
      {"--tls-key", security.tls.key},
      {"--tls-ca", security.tls.ca}};
  for (const auto& [flag, path] : files) {
    if (!path.empty()) argv->insert(argv->end(), {flag, path});
  }
  if (security.allow_plaintext) argv->push_back("--insecure");
}

}  // namespace

std::vector<ProcessSpec> MakeProcessSpecs(const ServeOptions& options,
                                          const ResolvedServe& resolved) {
  const std::string bin = ProgramFolder();
  const std::string threads = absl::StrCat(resolved.threads);
  const std::string context = absl::StrCat(resolved.context_tokens);
  const std::string target_socket = absl::StrCat("unix:", resolved.socket_dir, "/target.sock");
  const std::string draft_socket = absl::StrCat("unix:", resolved.socket_dir, "/draft.sock");

  std::vector<ProcessSpec> specs;
  specs.push_back(
      {.name = "target",
       .argv = {bin + "/tandem-target", "--model", resolved.models.target, "--listen",
                target_socket, "--threads", threads, "--ctx", context, "--kv", options.target_kv,
                "--kv-pages", absl::StrCat(resolved.num_kv_pages), "--page-positions",
                absl::StrCat(resolved.page_positions), "--log-level", options.log_level},
       .takes_restart_reason = true});
  if (resolved.swap_bytes > 0) {
    specs.back().argv.insert(specs.back().argv.end(),
                             {"--swap-space", absl::StrCat(resolved.swap_bytes)});
  }
  AddDeviceArguments(options, resolved.target_budget_bytes, /*is_target=*/true, &specs.back().argv);
  ProcessSpec gateway = {
      .name = "gateway",
      .argv = {bin + "/tandem-gateway", "--listen", options.listen, "--metrics-listen",
               options.metrics_listen, "--target", target_socket, "--ctx", context, "--max-running",
               absl::StrCat(options.max_running), "--max-waiting",
               absl::StrCat(options.max_waiting), "--drain-timeout",
               absl::StrCat(options.drain_timeout_s), "--log-level", options.log_level}};
  AddSecurity(options.security, &gateway.argv);
  gateway.argv.insert(
      gateway.argv.end(),
      {"--max-queued-tokens", absl::StrCat(options.max_queued_tokens), "--slow-client-timeout",
       absl::StrCat(options.slow_client_timeout_s), "--pipelining", options.pipelining,
       "--stream-messages", absl::StrCat(options.stream_messages), "--stream-interval",
       absl::StrCat(options.stream_interval_s), "--prefill-stretch",
       absl::StrCat(options.prefill_stretch)});
  if (options.max_requests_per_client.has_value()) {
    gateway.argv.insert(gateway.argv.end(), {"--max-requests-per-client",
                                             absl::StrCat(*options.max_requests_per_client)});
  }
  if (!options.prefix_cache) gateway.argv.push_back("--no-prefix-cache");
  if (!resolved.models.draft.empty()) {
    specs.push_back({.name = "draft",
                     .argv = {bin + "/tandem-draft", "--model", resolved.models.draft, "--listen",
                              draft_socket, "--threads", threads, "--ctx", context, "--kv",
                              options.draft_kv, "--log-level", options.log_level},
                     .is_essential = false,
                     .takes_restart_reason = true});
    AddDeviceArguments(options, resolved.draft_budget_bytes, /*is_target=*/false,
                       &specs.back().argv);
    gateway.argv.insert(gateway.argv.end(), {"--draft", draft_socket});
  }
  specs.push_back(std::move(gateway));
  return specs;
}

}  // namespace tandem
