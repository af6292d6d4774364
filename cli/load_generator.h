// Sends requests to a server as many clients would.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cli/gateway_client.h"
#include "cli/load_report.h"
#include "tandem/gateway/v1/gateway.pb.h"

namespace tandem {

// A number of tokens, drawn evenly from [low, high].
struct TokenRange {
  int32_t low = 0;
  int32_t high = 0;
};

struct LoadOptions {
  int32_t num_requests = 64;
  double rate = 0.0;        // open loop: Poisson arrivals in a second; 0: closed loop
  int32_t concurrency = 8;  // closed loop: as many at a time; open loop: at most
  TokenRange prompt_tokens = {128, 128};
  TokenRange output_tokens = {64, 64};
  // Prompts begin with one of this many shared texts of so many tokens.
  int32_t num_shared_prefixes = 1;
  int32_t shared_prefix_tokens = 0;
  uint64_t seed = 1;
};

// Each request of the test, and when it is due (open loop; zero in a closed one). The same
// for the same options: tokens are random, below `vocabulary_size`, unless `texts` has
// prompts, which are then used in turn.
struct PlannedRequest {
  gateway::v1::GenerateRequest request;
  absl::Duration due;
};
std::vector<PlannedRequest> PlanLoad(const LoadOptions& options,
                                     const gateway::v1::GenerateRequest& prototype,
                                     int32_t vocabulary_size,
                                     const std::vector<std::string>& texts);

// Runs them; `on_progress` is called now and then with the number that are over. An open
// loop sends when due, whether earlier ones are over or not; one that would be beyond
// `concurrency` is not sent and counts as RESOURCE_EXHAUSTED of this side.
std::vector<RequestRecord> RunLoad(GatewayClient& client, const LoadOptions& options,
                                   const std::vector<PlannedRequest>& plan,
                                   const std::function<void(int32_t)>& on_progress);

}  // namespace tandem
