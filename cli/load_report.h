// What a load test found.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace tandem {

// One request as its client saw it. Times from the start of the test.
struct RequestRecord {
  absl::Duration sent;
  absl::Duration first_token, last_token, end;
  std::vector<double> gaps_s;  // between events with tokens: what a reader waits for
  absl::Status status;
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t output_tokens = 0;
  int32_t draft_tokens = 0;
  int32_t accepted_tokens = 0;
  int32_t steps = 0;
};

// What a request must meet to count as good; zero: anything does.
struct ServiceLevel {
  absl::Duration time_to_first_token;
  absl::Duration time_per_output_token;
};

struct Percentiles {
  double p50 = 0.0, p90 = 0.0, p95 = 0.0, p99 = 0.0, max = 0.0, mean = 0.0;
  int64_t count = 0;
};

// Nearest rank. All zero without values.
Percentiles PercentilesOf(std::vector<double> values);

struct LoadReport {
  int64_t num_ok = 0, num_rejected = 0, num_failed = 0, num_good = 0;
  double seconds = 0.0;  // from the first request sent to the last one's end
  int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  int64_t draft_tokens = 0, accepted_tokens = 0, steps = 0;
  // Seconds, of requests that ended well; of the refused how soon they knew.
  Percentiles time_to_first_token, time_per_output_token, inter_token_latency, total;
  Percentiles rejection;
};

LoadReport MakeLoadReport(const std::vector<RequestRecord>& records, const ServiceLevel& level);

// One JSON object: `settings` (a JSON object), then the report, then each request's figures
// for plots.
std::string ToJson(const LoadReport& report, const std::vector<RequestRecord>& records,
                   const std::string& settings);
std::string ToMarkdown(const LoadReport& report);

}  // namespace tandem
