// The request options that `generate` and `chat` share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "cli/serve_options.h"
#include "common/rpc/security.h"
#include "tandem/gateway/v1/gateway.pb.h"

namespace tandem {

struct RequestOptions {
  std::string endpoint;           // empty: the default server, or one of this command's own
  rpc::ChannelSecurity security;  // of the connection to `endpoint`
  int32_t max_tokens = 0;
  float temperature = 0.0f;
  int32_t top_k = 0;
  std::optional<float> top_p;
  float min_p = 0.0f;
  std::optional<float> repetition_penalty;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  std::string speculation = "auto";
  int32_t draft_length = 0;
  std::string rule = "coupled";
  int32_t priority = 0;
  ServeOptions serve;  // of the server this command starts
};

// Declares the options on `command`.
void AddRequestOptions(CLI::App& command, RequestOptions& options);

// A request with everything but its input.
gateway::v1::GenerateRequest MakeRequest(const RequestOptions& options);

}  // namespace tandem
