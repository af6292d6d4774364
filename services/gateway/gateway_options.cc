#include "services/gateway/gateway_options.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"

namespace tandem::gateway {
namespace {

void AddAdmission(CLI::App& app, GatewayOptions& options) {
  app.add_option("--max-running", options.max_running,
                 "requests in a step at once; at most the target's --max-sequences")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--max-waiting", options.max_waiting, "requests in the queue at most")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str();
  app.add_option("--max-requests-per-client", options.max_requests_per_client,
                 "of one API key or address, running and waiting; 0: no limit (default: three "
                 "quarters of --max-running and --max-waiting together)")
      ->check(CLI::Range(0, 100000));
  app.add_option("--max-queued-tokens", options.max_queued_tokens,
                 "prompt tokens, running and waiting; 0: 16 page pools full")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40))
      ->capture_default_str();
  app.add_option("--prefill-stretch", options.prefill_stretch,
                 "how many times longer a prompt may make the steps of others")
      ->check(CLI::Range(1.0, 1000.0))
      ->capture_default_str();
}

void AddStreams(CLI::App& app, GatewayOptions& options, double& interval_s) {
  app.add_option("--stream-messages", options.stream_messages,
                 "messages a second of all streams: where steps make more, tokens of several "
                 "travel together; 0: no limit")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  app.add_option("--stream-interval", interval_s,
                 "seconds between messages of a stream at least, however few there are")
      ->check(CLI::Range(0.0, 10.0))
      ->capture_default_str();
}

}  // namespace

int32_t RequestsPerClient(const GatewayOptions& options) {
  if (options.max_requests_per_client.has_value()) return *options.max_requests_per_client;
  return std::max(1, (options.max_running + options.max_waiting) * 3 / 4);
}

absl::StatusOr<GatewayOptions> ParseGatewayOptions(int argc, const char* const* argv) {
  GatewayOptions options;
  double drain_timeout_s = absl::ToDoubleSeconds(options.drain_timeout);
  double slow_client_timeout_s = absl::ToDoubleSeconds(options.slow_client_timeout);
  double stream_interval_s = absl::ToDoubleSeconds(options.stream_interval);
  CLI::App app("The gateway of Tandem: takes requests and runs draft and target.",
               "tandem-gateway");
  app.add_option("--listen", options.listen, "host:port or unix:/path of the service")
      ->capture_default_str();
  app.add_option("--tls-cert", options.security.tls.certificate, "PEM of our certificate chain");
  app.add_option("--tls-key", options.security.tls.key, "PEM of its key");
  app.add_option("--tls-ca", options.security.tls.ca, "PEM of who signs clients: asks for mTLS");
  app.add_flag("--insecure", options.security.allow_plaintext,
               "plaintext also beyond this machine");
  app.add_option("--metrics-listen", options.metrics_listen, "host:port of /metrics")
      ->capture_default_str();
  app.add_option("--target", options.target, "unix:/path of the target worker")->required();
  app.add_option("--draft", options.draft, "unix:/path of the draft worker");
  app.add_option("--ctx", options.max_context, "largest prompt plus output; 0: the target's")
      ->check(CLI::Range(0, 1 << 24));
  AddAdmission(app, options);
  app.add_option("--drain-timeout", drain_timeout_s, "seconds for running requests after SIGTERM")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  app.add_option("--slow-client-timeout", slow_client_timeout_s,
                 "seconds for a client that does not read")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  AddStreams(app, options, stream_interval_s);
  app.add_option("--pipelining", options.pipelining,
                 "drafts for one half of a batch beside the verify of the other; auto: on a GPU, "
                 "where it measures faster")
      ->check(CLI::IsMember({"auto", "on", "off"}))
      ->capture_default_str();
  app.add_flag("!--no-ring", options.use_ring, "steps by gRPC even where a worker has a ring");
  app.add_flag("!--no-prefix-cache", options.prefix_cache,
               "run every prompt from its start, keep no pages of others");
  app.add_option("--log-level", options.log_level)
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return absl::OutOfRangeError(app.help());
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  const std::pair<const char*, double> numbers[] = {
      {"--drain-timeout", drain_timeout_s},
      {"--slow-client-timeout", slow_client_timeout_s},
      {"--stream-messages", options.stream_messages},
      {"--stream-interval", stream_interval_s},
      {"--prefill-stretch", options.prefill_stretch}};
  for (const auto& [flag, value] : numbers) {
    // NaN is in every range of CLI11's.
    if (std::isnan(value)) return absl::InvalidArgumentError(absl::StrCat(flag, ": not a number"));
  }
  options.drain_timeout = absl::Seconds(drain_timeout_s);
  options.slow_client_timeout = absl::Seconds(slow_client_timeout_s);
  options.stream_interval = absl::Seconds(stream_interval_s);
  return options;
}

}  // namespace tandem::gateway
