// Sends requests to a server as many clients would.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cli/load_report.h"
#include "cli/token_lengths.h"
#include "tandem/gateway/v1/gateway.pb.h"

namespace tandem {

// Requests at a time that may be asked for, and the bound of an open loop that asks for none: it
// guards this process, which has a thread for each request in flight.
constexpr int32_t kMaxConcurrency = 4096;
constexpr int32_t kClosedConcurrency = 8;

struct LoadOptions {
  int32_t num_requests = 64;
  double rate = 0.0;                   // open loop: Poisson arrivals in a second; 0: closed loop
  std::optional<int32_t> concurrency;  // closed loop: as many at a time; open loop: at most
  TokenLengths prompt_tokens = {128, 128};
  TokenLengths output_tokens = {64, 64};
  // Prompts begin with one of this many shared texts of so many tokens.
  int32_t num_shared_prefixes = 1;
  int32_t shared_prefix_tokens = 0;
  uint64_t seed = 1;
};

// What `concurrency` is, given or not.
int32_t MostInFlight(const LoadOptions& options);

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

// Runs one request and hands its events over as they come, as GatewayClient::Generate does. Called
// by many threads at a time.
using GenerateCall = std::function<absl::Status(
    const gateway::v1::GenerateRequest&,
    const std::function<bool(const gateway::v1::GenerateResponse&)>& on_event)>;

// Runs them; `on_progress` is called now and then, by this thread, with the number that are over.
// An open loop sends when due, whether earlier ones are over or not; one that would be beyond
// MostInFlight() is not sent, and its record says so.
std::vector<RequestRecord> RunLoad(const GenerateCall& generate, const LoadOptions& options,
                                   const std::vector<PlannedRequest>& plan,
                                   const std::function<void(int32_t)>& on_progress);

}  // namespace tandem
