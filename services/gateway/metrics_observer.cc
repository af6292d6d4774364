#include "services/gateway/metrics_observer.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/host_memory.h"
#include "common/telemetry/log.h"
#include "common/telemetry/trace_context.h"
#include "services/gateway/process_events.h"

namespace tandem::gateway {
namespace {

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

const char* FormatOf(const std::string& model_path) {
  return absl::EndsWith(model_path, ".gguf") ? "gguf" : "safetensors";
}

// The label of tandem_requests_rejected_total: by the error's reason, else by its code.
const char* RejectionOf(const CallInfo& call) {
  static constexpr std::pair<std::string_view, const char*> kByReason[] = {
      {"QUEUE_FULL", "queue_full"},     {"CLIENT_LIMIT", "client_limit"},
      {"TOKEN_LIMIT", "queued_tokens"}, {"PROMPT_TOO_LONG", "too_large"},
      {"STARTING", "starting"},         {"DRAINING", "draining"}};
  static constexpr std::pair<std::string_view, const char*> kByCode[] = {
      {"RESOURCE_EXHAUSTED", "no_pages"},
      {"INVALID_ARGUMENT", "invalid"},
      {"NOT_FOUND", "not_found"},
      {"ALREADY_EXISTS", "duplicate"},
      {"UNAVAILABLE", "unavailable"}};
  for (const auto& [reason, label] : kByReason) {
    if (call.reason == reason) return label;
  }
  for (const auto& [code, label] : kByCode) {
    if (call.code == code) return label;
  }
  return nullptr;
}

// The label of tandem_worker_restarts_total: as whoever started the worker says, or as the link
// saw it.
const char* RestartReason(const WorkerDescription& worker, const ConnectionInfo& info) {
  for (const char* reason : {"hang", "oom", "xid"}) {
    if (worker.restart_reason == reason) return reason;
  }
  return info.had_hung ? "hang" : "crash";
}

// Lines logged since the last call; `counted` remembers.
void CountLogMessages(std::array<int64_t, kLogLevels.size()>* counted, Metrics* metrics) {
  const auto counts = NumLogMessages();
  for (size_t i = 0; i < counts.size(); ++i) {
    const auto more = static_cast<double>(counts[i] - (*counted)[i]);
    if (more > 0) metrics->Add(Metric::kLogMessages, {kLogLevels[i]}, more);
  }
  *counted = counts;
}

// One line for each answer that somebody traces, or that failed through no fault of theirs.
void LogCall(const CallInfo& call) {
  const std::optional<TraceContext> trace = ParseTraceparent(call.traceparent);
  const std::string seconds = absl::StrFormat("%.3f", Seconds(call.duration));
  const auto log = call.code == "INTERNAL"      ? LogError
                   : trace && trace->is_sampled ? LogInfo
                                                : LogDebug;
  if (!trace.has_value()) {
    return log("request over", {{"request_id", call.request_id},
                                {"code", call.code},
                                {"finish_reason", call.finish_reason},
                                {"seconds", seconds}});
  }
  log("request over", {{"request_id", call.request_id},
                       {"code", call.code},
                       {"finish_reason", call.finish_reason},
                       {"seconds", seconds},
                       {"trace_id", trace->trace_id},
                       {"parent_id", trace->parent_id}});
}

}  // namespace

MetricsObserver::MetricsObserver(Metrics* metrics)
    : metrics_(metrics), memory_(std::make_shared<Memory>()) {
  metrics_->BeforeLook(
      [metrics, memory = memory_, counted = std::array<int64_t, kLogLevels.size()>()]() mutable {
        ReportMemory(*memory, metrics);
        CountLogMessages(&counted, metrics);
      });
}

// Of the device as its worker told, or of the host where that is the device.
void MetricsObserver::ReportMemory(Memory& memory, Metrics* metrics) {
  std::string gpu;
  {
    const std::lock_guard lock(memory.mutex);
    gpu = memory.gpu;
  }
  if (gpu.empty()) return;  // whose memory it would be is not known
  HostMemory device = {.total_bytes = memory.device_total, .available_bytes = memory.device_free};
  if (device.total_bytes == 0) device = ReadHostMemory();
  int64_t accounted = memory.pool;
  int64_t budget = memory.pool;
  for (int role = 0; role < kNumRoles; ++role) {
    accounted += memory.of_role[role];
    budget += memory.budget_of_role[role];
  }
  const int64_t used = device.total_bytes - device.available_bytes;
  metrics->SetOnly(Metric::kVramTotal, {gpu}, static_cast<double>(device.total_bytes));
  metrics->SetOnly(Metric::kVramFree, {gpu}, static_cast<double>(device.available_bytes));
  metrics->Set(Metric::kVramBudget, static_cast<double>(budget));
  metrics->Set(Metric::kVramUnaccounted,
               static_cast<double>(std::max<int64_t>(0, used - accounted)));
}

void MetricsObserver::OnFinished(const FinishedInfo& info) {
  metrics_->Add(Metric::kPromptTokens, {}, info.prompt_tokens);
  metrics_->Observe(Metric::kRequestPromptTokens, info.prompt_tokens);
  metrics_->Observe(Metric::kRequestGenerationTokens, info.output_tokens);
  metrics_->Observe(Metric::kRequestPrefill, Seconds(info.prefill));
  metrics_->Observe(Metric::kRequestDecode, Seconds(info.decode));
  if (info.estimated_plain_decode > absl::ZeroDuration()) {
    metrics_->Add(Metric::kSpecDecodeSeconds, {}, Seconds(info.decode));
    metrics_->Add(Metric::kSpecPlainSeconds, {}, Seconds(info.estimated_plain_decode));
  }
  if (info.output_tokens > 1) {
    metrics_->Observe(Metric::kTimePerOutputToken,
                      Seconds(info.total - info.time_to_first_token) / (info.output_tokens - 1));
  }
}

void MetricsObserver::OnFailed(const absl::Status& status) {
  if (absl::IsInternal(status)) LogError(absl::StrCat("a request failed: ", status.message()));
}

void MetricsObserver::OnPrefixLookup(Role role, int32_t num_tokens, int32_t num_cached) {
  if (role != Role::kTarget) return;  // what a prompt's tokens cost
  metrics_->Add(Metric::kPrefixCacheQueriedTokens, {}, num_tokens);
  metrics_->Add(Metric::kPrefixCacheHitTokens, {}, num_cached);
}

void MetricsObserver::OnPressure(PressureRung rung, int32_t count) {
  metrics_->Add(Metric::kPressure, {PressureRungName(rung)}, count);
  if (rung == PressureRung::kPreempt) metrics_->Add(Metric::kPreemptions, {"no_pages"}, count);
  if (rung == PressureRung::kEvictCached) metrics_->Add(Metric::kKvEvictions, {"no_pages"}, count);
}

void MetricsObserver::OnSwapped(int32_t num_pages, bool to_host) {
  metrics_->Add(Metric::kSwappedPages, {to_host ? "out" : "in"}, num_pages);
}

void MetricsObserver::OnWorkerLost(Role role, const absl::Status& status) {
  LogDebug(absl::StrCat("the engine lost the ", RoleName(role), ": ", status.message()));
}

void MetricsObserver::OnGauges(const EngineGauges& gauges) {
  CountRound();
  metrics_->Set(Metric::kRequestsRunning, gauges.num_running);
  metrics_->Set(Metric::kRequestsWaiting, gauges.num_waiting);
  const double used = gauges.pages_target + gauges.pages_draft;
  metrics_->Set(Metric::kKvPages, {"free"}, gauges.pages_free);
  metrics_->Set(Metric::kKvPages, {"used"}, used - gauges.pages_pinned);
  metrics_->Set(Metric::kKvPages, {"cached"}, gauges.pages_idle);
  metrics_->Set(Metric::kKvPages, {"pinned"}, gauges.pages_pinned);
  metrics_->Set(Metric::kSwapPages, {"free"}, gauges.swap_pages_free);
  metrics_->Set(Metric::kSwapPages, {"used"}, gauges.swap_pages - gauges.swap_pages_free);
  metrics_->Set(Metric::kKvUsageRatio, gauges.pages_total > 0 ? used / gauges.pages_total : 0.0);
  // The pages of the draft are the draft's memory; the rest of the pool is the target's.
  const double of_draft = static_cast<double>(gauges.pages_draft) * memory_->page;
  metrics_->Set(Metric::kVramBytes, {"draft", "kv"}, of_draft);
  metrics_->Set(Metric::kVramBytes, {"target", "kv"}, std::max(0.0, memory_->pool - of_draft));
  metrics_->Set(Metric::kWorkerUp, {"target"}, gauges.target_up ? 1 : 0);
  metrics_->Set(Metric::kWorkerUp, {"draft"}, gauges.draft_up ? 1 : 0);
  metrics_->Set(Metric::kSpecDraftLength, gauges.mean_draft_length);
}

void MetricsObserver::OnConnected(Role role, const WorkerDescription& worker,
                                  const ConnectionInfo& info) {
  const char* name = RoleName(role);
  metrics_->SetInfo(Metric::kBuildInfo,
                    {name, worker.build_version, worker.build_commit, worker.build_cuda});
  metrics_->SetInfo(Metric::kModelInfo,
                    {name, worker.name, FormatOf(worker.model_path), worker.quantization,
                     absl::StrCat(worker.num_parameters), worker.device});
  metrics_->Set(Metric::kModelLoadDuration, {name, "map"}, Seconds(worker.map));
  metrics_->Set(Metric::kModelLoadDuration, {name, "upload"}, Seconds(worker.upload));
  metrics_->Set(Metric::kModelLoadDuration, {name, "warmup"}, Seconds(worker.warmup));
  memory_->budget_of_role[static_cast<int>(role)] = worker.weight_bytes + worker.workspace_bytes;
  NoteMemory(role, worker);
  metrics_->Set(Metric::kVramBytes, {name, "weights"}, static_cast<double>(worker.weight_bytes));
  metrics_->Set(Metric::kVramBytes, {name, "workspace"},
                static_cast<double>(worker.workspace_bytes));
  if (role == Role::kTarget) {
    metrics_->SetModel(worker.name);
    memory_->page = worker.page_bytes;
    memory_->pool = worker.num_pages * worker.page_bytes;
    metrics_->Set(Metric::kVramBytes, {name, "kv"}, static_cast<double>(memory_->pool));
    metrics_->SetInfo(Metric::kKvCacheConfigInfo,
                      {name, absl::StrCat(worker.num_pages), absl::StrCat(worker.page_bytes),
                       absl::StrCat(worker.facts.positions_per_page), worker.kv_type});
  }
  if (info.is_restart) {
    const char* reason = RestartReason(worker, info);
    metrics_->Add(Metric::kWorkerRestarts, {name, reason});
    LogInfo(absl::StrCat("the ", name, " is back after a ", reason));
  }
  LogDebug(absl::StrCat("connected to the ", name, ": ", worker.name, " ", worker.quantization,
                        ", steps by ", info.is_ring ? "ring" : "gRPC"));
}

void MetricsObserver::NoteMemory(Role role, const WorkerDescription& worker) {
  memory_->of_role[static_cast<int>(role)] =
      worker.weight_bytes + worker.workspace_bytes + worker.other_bytes;
  metrics_->Set(Metric::kVramBytes, {RoleName(role), "other"},
                static_cast<double>(worker.other_bytes));
  if (role != Role::kTarget) return;
  memory_->device_free = worker.device_free_bytes;
  memory_->device_total = worker.device_total_bytes;
  const std::lock_guard lock(memory_->mutex);
  memory_->gpu = worker.device_total_bytes > 0 ? worker.device_name : "host";
}

void MetricsObserver::OnAskedAgain(Role role, const WorkerDescription& worker) {
  NoteMemory(role, worker);
}

void MetricsObserver::OnHung(Role role) {
  LogError(
      absl::StrCat("the ", RoleName(role), " hangs: it did not answer a step, and no call since"));
  PrintHung(RoleName(role));
}

void MetricsObserver::OnLost(Role role, const absl::Status& status) {
  LogWarning(absl::StrCat("lost the ", RoleName(role), ": ", status.message()));
}

void MetricsObserver::OnRefused(Role, const absl::Status& status) {
  LogError(std::string(status.message()));
}

void MetricsObserver::OnRingFailed(Role role, const absl::Status& status) {
  LogWarning(absl::StrCat("the ring of the ", RoleName(role),
                          " cannot be used, steps go by gRPC: ", status.message()));
}

void MetricsObserver::OnCall(const CallInfo& call) {
  metrics_->Add(Metric::kRequests, {call.method, call.code, call.finish_reason});
  metrics_->Observe(Metric::kRequestDuration, {call.method}, Seconds(call.duration));
  LogCall(call);
  const char* reason = call.is_rejected ? RejectionOf(call) : nullptr;
  if (reason != nullptr) metrics_->Add(Metric::kRequestsRejected, {reason});
}

void MetricsObserver::OnSent(const char* event, absl::Duration waited) {
  metrics_->Add(Metric::kStreamMessages, {event});
  metrics_->Observe(Metric::kStreamSendBlocked, Seconds(waited));
}

void MetricsObserver::OnBuffered(int64_t num_bytes) {
  if (num_bytes != 0) metrics_->Change(Metric::kStreamBuffered, static_cast<double>(num_bytes));
}

void MetricsObserver::OnLimits(int32_t max_running, int32_t max_waiting) {
  metrics_->Set(Metric::kRequestsLimit, {"running"}, max_running);
  metrics_->Set(Metric::kRequestsLimit, {"waiting"}, max_waiting);
}

}  // namespace tandem::gateway
