// Every metric of Tandem: names, types, help, labels and buckets, in one list.
//
// Names follow Prometheus: base units, the unit last, `_total` on counters, no label with
// unbounded values. Semantics are vLLM's where it has the same metric.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tandem {

enum class MetricType : int8_t { kCounter, kGauge, kHistogram };

// Upper bounds of a histogram's buckets.
enum class Buckets : int8_t { kNone, kLatency, kTokenLatency, kStep, kTokens, kSequences };

// A label, and its values separated by '|': all of them are there from the start, as 0.
// A label without values gets them as they come; the code bounds them.
struct MetricLabel {
  std::string_view name;
  std::string_view values;
};

inline constexpr int kMaxMetricLabels = 3;

struct MetricSpec {
  std::string_view name;
  MetricType type = MetricType::kGauge;
  std::string_view help;
  std::array<MetricLabel, kMaxMetricLabels> labels = {};  // up to the first without a name
  Buckets buckets = Buckets::kNone;
};

// Indices into kMetrics, in its order.
enum class Metric : int8_t {
  kBuildInfo,
  kModelInfo,
  kReady,
  kWorkerUp,
  kWorkerRestarts,
  kRequests,
  kRequestsRejected,
  kRequestsRunning,
  kRequestsWaiting,
  kRequestDuration,
  kTimeToFirstToken,
  kTimePerOutputToken,
  kInterTokenLatency,
  kRequestQueue,
  kRequestPrefill,
  kRequestDecode,
  kPromptTokens,
  kGenerationTokens,
  kRequestPromptTokens,
  kRequestGenerationTokens,
  kSpecDrafts,
  kSpecDraftTokens,
  kSpecAcceptedTokens,
  kSpecAcceptedPerPosition,
  kSpecBypass,
  kSpecDraftLength,
  kStepDuration,
  kBatchSize,
  kKvPages,
  kKvUsageRatio,
  kPreemptions,
  kPrefixCacheQueriedTokens,
  kPrefixCacheHitTokens,
  kVramBytes,
  kCount,
};

namespace metric_internal {
inline constexpr std::string_view kRoles = "target|draft";
inline constexpr std::string_view kMethods = "Generate|Tokenize|Detokenize|GetModel";
// The bypass reasons of common/speculation/controller.h.
inline constexpr std::string_view kBypassReasons =
    "off|draft_down|catching_up|no_pages|no_slot|not_worth_it|no_match|last_token|no_rows|"
    "calibrating|no_draft|draft_failed|draft_context";
inline constexpr MetricType kCounter = MetricType::kCounter;
inline constexpr MetricType kGauge = MetricType::kGauge;
inline constexpr MetricType kHistogram = MetricType::kHistogram;
}  // namespace metric_internal

inline constexpr std::array<MetricSpec, static_cast<size_t>(Metric::kCount)> kMetrics = [] {
  using namespace metric_internal;  // NOLINT(google-build-using-namespace): of this list only
  return std::array<MetricSpec, static_cast<size_t>(Metric::kCount)>{{
      {"tandem_build_info", kGauge, "1; the version that runs.", {{{"version", ""}}}},
      {"tandem_model_info",
       kGauge,
       "1; what each worker has loaded.",
       {{{"role", ""}, {"name", ""}, {"quantization", ""}}}},
      {"tandem_ready", kGauge, "1 while requests are taken."},
      {"tandem_worker_up", kGauge, "1 while the worker takes steps.", {{{"role", kRoles}}}},
      {"tandem_worker_restarts_total",
       kCounter,
       "Times a worker was lost and came back.",
       {{{"role", kRoles}, {"reason", "crash|hang"}}}},
      {"tandem_requests_total",
       kCounter,
       "Finished calls, by gRPC code and what ended the answer.",
       {{{"method", kMethods}, {"code", "OK"}, {"finish_reason", "none"}}}},
      {"tandem_requests_rejected_total",
       kCounter,
       "Calls refused before they ran.",
       {{{"reason", "queue_full|invalid|not_found|duplicate|unavailable"}}}},
      {"tandem_requests_running", kGauge, "Requests in steps."},
      {"tandem_requests_waiting", kGauge, "Requests in the queue."},
      {"tandem_request_duration_seconds",
       kHistogram,
       "From a call's arrival to its end.",
       {{{"method", kMethods}}},
       Buckets::kLatency},
      {"tandem_time_to_first_token_seconds",
       kHistogram,
       "From a request's arrival, tokenization included, to its first token.",
       {},
       Buckets::kLatency},
      {"tandem_time_per_output_token_seconds",
       kHistogram,
       "(duration - time to first token) / (output tokens - 1), of each answer.",
       {},
       Buckets::kTokenLatency},
      {"tandem_inter_token_latency_seconds",
       kHistogram,
       "Time between commits of a request, over the tokens of the commit.",
       {},
       Buckets::kTokenLatency},
      {"tandem_request_queue_seconds",
       kHistogram,
       "From arrival to the first step.",
       {},
       Buckets::kLatency},
      {"tandem_request_prefill_seconds",
       kHistogram,
       "From the first step to the first token.",
       {},
       Buckets::kLatency},
      {"tandem_request_decode_seconds",
       kHistogram,
       "From the first token to the last.",
       {},
       Buckets::kLatency},
      {"tandem_prompt_tokens_total", kCounter, "Tokens of the prompts of finished answers."},
      {"tandem_generation_tokens_total", kCounter, "Tokens generated."},
      {"tandem_request_prompt_tokens",
       kHistogram,
       "Prompt tokens of a request.",
       {},
       Buckets::kTokens},
      {"tandem_request_generation_tokens",
       kHistogram,
       "Output tokens of a request.",
       {},
       Buckets::kTokens},
      {"tandem_spec_drafts_total", kCounter, "Drafts verified.", {{{"source", "draft|lookup"}}}},
      {"tandem_spec_draft_tokens_total",
       kCounter,
       "Draft tokens verified.",
       {{{"source", "draft|lookup"}}}},
      {"tandem_spec_accepted_tokens_total",
       kCounter,
       "Draft tokens accepted.",
       {{{"source", "draft|lookup"}}}},
      {"tandem_spec_accepted_tokens_per_position_total",
       kCounter,
       "Draft tokens accepted, by position in the draft.",
       {{{"position", "0|1|2|3|4|5|6|7|8|9|10|11|12|13|14|15"}}}},
      {"tandem_spec_bypass_total",
       kCounter,
       "Steps of a sequence without a draft, by reason.",
       {{{"reason", kBypassReasons}}}},
      {"tandem_spec_draft_length", kGauge,
       "Mean length of the drafts of the last step, in tokens."},
      {"tandem_step_duration_seconds",
       kHistogram,
       "Parts of a step: the round trip as the gateway sees it, compute and sample as the "
       "worker measures them.",
       {{{"role", kRoles}, {"phase", "round_trip|compute|sample"}}},
       Buckets::kStep},
      {"tandem_batch_size",
       kHistogram,
       "Sequences in a step.",
       {{{"role", kRoles}}},
       Buckets::kSequences},
      {"tandem_kv_pages",
       kGauge,
       "Pages of the shared pool.",
       {{{"state", "free|used|cached|pinned"}}}},
      {"tandem_kv_usage_ratio", kGauge, "Used pages over all pages, 0 to 1."},
      {"tandem_preemptions_total",
       kCounter,
       "Times a sequence gave its pages to another.",
       {{{"reason", "no_pages"}}}},
      {"tandem_prefix_cache_queried_tokens_total", kCounter,
       "Prompt tokens looked for among cached pages."},
      {"tandem_prefix_cache_hit_tokens_total", kCounter, "Prompt tokens found there."},
      {"tandem_vram_bytes",
       kGauge,
       "Memory of the device (of the host where that is the device).",
       {{{"role", kRoles}, {"kind", "weights|kv|workspace|other"}}}},
  }};
}();

constexpr const MetricSpec& SpecOf(Metric metric) { return kMetrics[static_cast<size_t>(metric)]; }

}  // namespace tandem
