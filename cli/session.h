// A connection to a server, which may be one of this command's own.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "cli/gateway_client.h"
#include "cli/local_server.h"
#include "cli/request_options.h"

namespace tandem {

struct Session {
  std::unique_ptr<LocalServer> server;  // null when another server answers
  std::unique_ptr<GatewayClient> client;
};

// Connects to the named endpoint, else to the default one, else starts a server. On
// failure `exit_code` says how to exit.
absl::StatusOr<Session> OpenSession(const RequestOptions& options, int* exit_code);

// One answer as it is made: text to standard output. Returns what the closing line
// tells, or the error.
absl::StatusOr<gateway::v1::Finished> StreamAnswer(GatewayClient& client,
                                                   const gateway::v1::GenerateRequest& request,
                                                   std::string* text);

// "42 tokens · 96.1 tok/s · first token 48 ms · accepted 71 % (2.9 tokens a step) · 1.8x
// plain", or "... · no drafts".
std::string ClosingLine(const gateway::v1::Finished& finished);

}  // namespace tandem
