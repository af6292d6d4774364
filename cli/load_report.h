// What a load test found.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace tandem {

// One request as its client saw it. Times from the start of the test.
struct RequestRecord {
  // In an open loop: when it was to be sent, whatever kept the generator from it. What the client
  // waits is counted from here, or from `sent` where this is unset.
  std::optional<absl::Duration> due;
  bool was_sent = true;  // false: the generator could not; of the rest only `due` is set
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

// What an answer must meet to count as good; zero: any does. One of no tokens has its end as its
// first sign, which must come as soon as a first token.
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
  int64_t num_empty = 0;       // of the `num_ok`: answers of no tokens
  int64_t num_not_sent = 0;    // by the generator; none of the others
  absl::Status first_failure;  // of the `num_failed`
  double seconds = 0.0;        // from when the first was due to the last one's end, of those sent
  int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  int64_t draft_tokens = 0, accepted_tokens = 0, steps = 0;
  // Seconds, of requests that ended well; of the refused how soon they knew. Where there is no
  // token, or no second one, there is no such time.
  Percentiles time_to_first_token, time_per_output_token, inter_token_latency, total;
  Percentiles rejection;
  Percentiles lateness;  // seconds from due to sent, open loop; the figures above have it in them
};

LoadReport MakeLoadReport(const std::vector<RequestRecord>& records, const ServiceLevel& level);

// One JSON object: `settings` (a JSON object), then the report, then each request's figures
// for plots.
std::string ToJson(const LoadReport& report, const std::vector<RequestRecord>& records,
                   const std::string& settings);
std::string ToMarkdown(const LoadReport& report);

}  // namespace tandem
