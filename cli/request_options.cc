#include "cli/request_options.h"

namespace tandem {

namespace v1 = gateway::v1;

void AddRequestOptions(CLI::App& command, RequestOptions& options) {
  command.add_option("--endpoint", options.endpoint,
                     "server to ask, host:port or unix:/path (default: 127.0.0.1:50051, or a "
                     "server of this command's own)");
  command.add_flag("--tls", options.security.use_tls, "TLS, by the system's roots");
  command.add_option("--tls-ca", options.security.tls.ca, "TLS: PEM of who signs the server");
  command.add_option("--tls-cert", options.security.tls.certificate,
                     "TLS: PEM of our own certificate chain");
  command.add_option("--tls-key", options.security.tls.key, "TLS: PEM of its key");
  command.add_flag("--insecure", options.security.allow_plaintext,
                   "plaintext also beyond this machine");
  command.add_option("--max-tokens", options.max_tokens, "largest output; 0: the context's end");
  command.add_option("--temperature", options.temperature, "0 is greedy")->capture_default_str();
  command.add_option("--top-k", options.top_k, "keep the k likeliest tokens; 0: all");
  command.add_option("--top-p", options.top_p, "keep the likeliest of this probability");
  command.add_option("--min-p", options.min_p, "drop what is less likely than this share");
  command.add_option("--repetition-penalty", options.repetition_penalty, "1 is off");
  command.add_option("--seed", options.seed, "same seed, same output");
  command.add_option("--stop", options.stop, "text that ends the output; may be repeated");
  command.add_flag("--ignore-eos", options.ignore_eos, "go on after the end of the answer");
  command.add_option("--speculation", options.speculation, "how drafts are made")
      ->check(CLI::IsMember({"auto", "off", "draft", "lookup"}))
      ->capture_default_str();
  command
      .add_option("--draft-length", options.draft_length, "tokens drafted in a step; 0: adaptive")
      ->check(CLI::Range(0, 16));
  command.add_option("--rule", options.rule, "how drafts are accepted when sampling")
      ->check(CLI::IsMember({"coupled", "rejection"}))
      ->capture_default_str();
  command.add_option("--priority", options.priority, "of those that wait the highest comes first")
      ->check(CLI::Range(-10, 10));
  command.add_option("--target", options.serve.target, "model, when no server is running");
  command.add_option("--draft", options.serve.draft, "draft, when no server is running");
  command.add_option("--kv", options.serve.target_kv, "KV cache, when no server is running")
      ->check(CLI::IsMember({"f16", "q8", "q4"}));
  command.add_option("--threads", options.serve.threads, "of each worker of an own server")
      ->check(CLI::Range(0, 256));
}

v1::GenerateRequest MakeRequest(const RequestOptions& options) {
  v1::GenerateRequest request;
  v1::Sampling* sampling = request.mutable_sampling();
  sampling->set_temperature(options.temperature);
  sampling->set_top_k(options.top_k);
  sampling->set_min_p(options.min_p);
  if (options.top_p.has_value()) sampling->set_top_p(*options.top_p);
  if (options.repetition_penalty.has_value()) {
    sampling->set_repetition_penalty(*options.repetition_penalty);
  }
  if (options.seed.has_value()) sampling->set_seed(*options.seed);

  v1::Stopping* stopping = request.mutable_stopping();
  stopping->set_max_tokens(options.max_tokens);
  stopping->set_ignore_eos(options.ignore_eos);
  for (const std::string& stop : options.stop) stopping->add_stop(stop);

  v1::Speculation* speculation = request.mutable_speculation();
  speculation->set_draft_length(options.draft_length);
  speculation->set_rule(options.rule == "rejection" ? v1::RULE_REJECTION : v1::RULE_COUPLED);
  if (options.speculation == "off") {
    speculation->set_mode(v1::MODE_OFF);
  } else if (options.speculation == "draft") {
    speculation->set_mode(v1::MODE_DRAFT);
  } else if (options.speculation == "lookup") {
    speculation->set_mode(v1::MODE_LOOKUP);
  } else {
    speculation->set_mode(v1::MODE_AUTO);
  }
  request.set_priority(options.priority);
  return request;
}

}  // namespace tandem
