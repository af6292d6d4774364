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

inline constexpr int kMaxMetricLabels = 6;

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
  kRequestsLimit,
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
  kSpecDecodeSeconds,
  kSpecPlainSeconds,
  kStepDuration,
  kBatchSize,
  kKvPages,
  kKvUsageRatio,
  kKvCacheConfigInfo,
  kKvEvictions,
  kPreemptions,
  kPressure,
  kSwapPages,
  kSwappedPages,
  kPrefixCacheQueriedTokens,
  kPrefixCacheHitTokens,
  kVramBytes,
  kVramTotal,
  kVramFree,
  kVramBudget,
  kVramUnaccounted,
  kStreamMessages,
  kStreamSendBlocked,
  kStreamBuffered,
  kModelLoadDuration,
  kLogMessages,
  kCount,
};

namespace metric_internal {
inline constexpr std::string_view kRoles = "target|draft";
inline constexpr std::string_view kMethods = "Generate|Tokenize|Detokenize|GetModel";
// The bypass reasons of common/speculation/draft_plan.h.
inline constexpr std::string_view kBypassReasons =
    "off|draft_down|no_draft_model|catching_up|no_pages|no_slot|not_worth_it|no_match|last_token|"
    "no_rows|calibrating|no_draft|draft_failed|draft_context|other_half";
inline constexpr std::string_view kRejections =
    "queue_full|client_limit|queued_tokens|no_pages|too_large|invalid|not_found|duplicate|"
    "starting|draining|unavailable";
inline constexpr std::string_view kRestartReasons = "crash|hang|oom|xid";
inline constexpr MetricType kCounter = MetricType::kCounter;
inline constexpr MetricType kGauge = MetricType::kGauge;
inline constexpr MetricType kHistogram = MetricType::kHistogram;
}  // namespace metric_internal

inline constexpr std::array<MetricSpec, static_cast<size_t>(Metric::kCount)> kMetrics = [] {
  using namespace metric_internal;  // NOLINT(google-build-using-namespace): of this list only
  return std::array<MetricSpec, static_cast<size_t>(Metric::kCount)>{{
      {"tandem_build_info",
       kGauge,
       "1; the build that runs: version, commit of the sources, CUDA toolkit or \"none\".",
       {{{"role", ""}, {"version", ""}, {"commit", ""}, {"cuda", ""}}}},
      {"tandem_model_info",
       kGauge,
       "1; what each worker has loaded.",
       {{{"role", ""},
         {"name", ""},
         {"format", ""},
         {"quantization", ""},
         {"parameters", ""},
         {"device", ""}}}},
      {"tandem_ready", kGauge, "1 while requests are taken."},
      {"tandem_worker_up", kGauge, "1 while the worker takes steps.", {{{"role", kRoles}}}},
      {"tandem_worker_restarts_total",
       kCounter,
       "Times a worker was lost and came back: it did not answer (hang), the kernel ended it for "
       "want of memory (oom), its GPU failed (xid), or anything else.",
       {{{"role", kRoles}, {"reason", kRestartReasons}}}},
      {"tandem_requests_total",
       kCounter,
       "Finished calls, by gRPC code and what ended the answer.",
       {{{"method", kMethods}, {"code", "OK"}, {"finish_reason", "none"}}}},
      {"tandem_requests_rejected_total",
       kCounter,
       "Calls refused before they ran.",
       {{{"reason", kRejections}}}},
      {"tandem_requests_running", kGauge, "Requests in steps."},
      {"tandem_requests_waiting", kGauge, "Requests in the queue."},
      {"tandem_requests_limit",
       kGauge,
       "Requests that may be in steps, and in the queue, at most.",
       {{{"state", "running|waiting"}}}},
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
      {"tandem_spec_decode_seconds_total", kCounter,
       "Decode time of the answers that the next metric has an estimate for."},
      {"tandem_spec_plain_decode_seconds_total", kCounter,
       "What these answers would have taken one token a step, by measured step times."},
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
      {"tandem_kv_cache_config_info",
       kGauge,
       "1; the page pool: pages, bytes of a page, target positions in a page, K and V types.",
       {{{"role", ""}, {"pages", ""}, {"page_bytes", ""}, {"page_tokens", ""}, {"kv_type", ""}}}},
      {"tandem_kv_evictions_total",
       kCounter,
       "Cached pages given to a sequence that needed them.",
       {{{"reason", "no_pages"}}}},
      {"tandem_preemptions_total",
       kCounter,
       "Times a sequence gave its pages to another.",
       {{{"reason", "no_pages"}}}},
      {"tandem_pressure_total",
       kCounter,
       "What was done because pages ran short: pages evicted or dropped, draft tokens cut, "
       "sequences preempted or refused.",
       {{{"rung", "evict_cached|shorten_drafts|drop_draft_pages|preempt|refuse"}}}},
      {"tandem_swap_pages",
       kGauge,
       "Places for pages of preempted sequences in the target's host memory (--swap-space).",
       {{{"state", "free|used"}}}},
      {"tandem_swapped_pages_total",
       kCounter,
       "Pages of preempted sequences moved to host memory, and back when their turn came.",
       {{{"direction", "out|in"}}}},
      {"tandem_prefix_cache_queried_tokens_total", kCounter,
       "Prompt tokens looked for among cached pages."},
      {"tandem_prefix_cache_hit_tokens_total", kCounter, "Prompt tokens found there."},
      {"tandem_vram_bytes",
       kGauge,
       "Memory of the device (of the host where that is the device).",
       {{{"role", kRoles}, {"kind", "weights|kv|workspace|other"}}}},
      {"tandem_vram_total_bytes",
       kGauge,
       "Memory that the device has: by its name, \"host\" where that is the device.",
       {{{"gpu", ""}}}},
      {"tandem_vram_free_bytes", kGauge, "Memory of the device that nobody uses.", {{{"gpu", ""}}}},
      {"tandem_vram_budget_bytes", kGauge,
       "What weights, workspace and page pool may take together, fixed at start."},
      {"tandem_vram_unaccounted_bytes", kGauge,
       "Used memory of the device that is in no series of tandem_vram_bytes: other programs, "
       "contexts, fragments. 0 while pages of the pool were never touched."},
      {"tandem_stream_messages_total",
       kCounter,
       "Messages of streams, by what they tell. A delta has the tokens of one step, or of several "
       "where steps make more messages than --stream-messages.",
       {{{"event", "started|delta|finished"}}}},
      {"tandem_stream_send_blocked_seconds",
       kHistogram,
       "How long a message of a stream waited until the connection took it.",
       {},
       Buckets::kStep},
      {"tandem_stream_buffered_bytes", kGauge,
       "Text that clients have not taken yet, of all streams."},
      {"tandem_model_load_duration_seconds",
       kGauge,
       "How long a worker took from its start until the file was mapped and checked (map), then "
       "until the weights were in place (upload), then until it took steps (warmup).",
       {{{"role", kRoles}, {"phase", "map|upload|warmup"}}}},
      {"tandem_log_messages_total",
       kCounter,
       "Lines that the gateway logged.",
       {{{"level", "debug|info|warn|error"}}}},
  }};
}();

constexpr const MetricSpec& SpecOf(Metric metric) { return kMetrics[static_cast<size_t>(metric)]; }

}  // namespace tandem
