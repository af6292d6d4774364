#include "services/gateway/metrics_observer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/telemetry/log.h"

namespace tandem::gateway {
namespace {

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

}  // namespace

void MetricsObserver::OnStep(const StepInfo& info) {
  const char* role = RoleName(info.role);
  metrics_->Observe(Metric::kStepDuration, {role, "round_trip"}, Seconds(info.round_trip));
  metrics_->Observe(Metric::kStepDuration, {role, "compute"}, Seconds(info.compute));
  metrics_->Observe(Metric::kStepDuration, {role, "sample"}, Seconds(info.sample));
  metrics_->Observe(Metric::kBatchSize, {role}, info.num_sequences);
}

void MetricsObserver::OnSequenceStep(const SequenceStepInfo& info) {
  metrics_->Add(Metric::kGenerationTokens, {}, std::max(0, info.num_committed));
  if (info.source == DraftSource::kNone || info.num_draft_tokens == 0) {
    if (!info.bypass_reason.empty()) metrics_->Add(Metric::kSpecBypass, {info.bypass_reason});
    return;
  }
  const char* source = info.source == DraftSource::kDraft ? "draft" : "lookup";
  metrics_->Add(Metric::kSpecDrafts, {source});
  metrics_->Add(Metric::kSpecDraftTokens, {source}, info.num_draft_tokens);
  metrics_->Add(Metric::kSpecAcceptedTokens, {source}, info.num_accepted);
  for (int32_t i = 0; i < info.num_accepted; ++i) {
    metrics_->Add(Metric::kSpecAcceptedPerPosition, {std::to_string(i)});
  }
}

void MetricsObserver::OnFirstToken(absl::Duration queue, absl::Duration time_to_first_token) {
  metrics_->Observe(Metric::kRequestQueue, Seconds(queue));
  metrics_->Observe(Metric::kTimeToFirstToken, Seconds(time_to_first_token));
}

void MetricsObserver::OnInterTokenLatency(absl::Duration since_last_commit, int32_t num_tokens) {
  if (num_tokens < 1) return;
  metrics_->Observe(Metric::kInterTokenLatency, Seconds(since_last_commit) / num_tokens);
}

void MetricsObserver::OnFinished(const FinishedInfo& info) {
  metrics_->Add(Metric::kPromptTokens, {}, info.prompt_tokens);
  metrics_->Observe(Metric::kRequestPromptTokens, info.prompt_tokens);
  metrics_->Observe(Metric::kRequestGenerationTokens, info.output_tokens);
  metrics_->Observe(Metric::kRequestPrefill, Seconds(info.prefill));
  metrics_->Observe(Metric::kRequestDecode, Seconds(info.decode));
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

void MetricsObserver::OnPreemption(std::string_view reason) {
  metrics_->Add(Metric::kPreemptions, {reason});
}

void MetricsObserver::OnWorkerLost(Role role, const absl::Status& status) {
  LogDebug(absl::StrCat("the engine lost the ", RoleName(role), ": ", status.message()));
}

void MetricsObserver::OnGauges(const EngineGauges& gauges) {
  metrics_->Set(Metric::kRequestsRunning, gauges.num_running);
  metrics_->Set(Metric::kRequestsWaiting, gauges.num_waiting);
  const double used = gauges.pages_target + gauges.pages_draft;
  metrics_->Set(Metric::kKvPages, {"free"}, gauges.pages_free);
  metrics_->Set(Metric::kKvPages, {"used"}, used - gauges.pages_pinned);
  metrics_->Set(Metric::kKvPages, {"cached"}, gauges.pages_idle);
  metrics_->Set(Metric::kKvPages, {"pinned"}, gauges.pages_pinned);
  metrics_->Set(Metric::kKvUsageRatio, gauges.pages_total > 0 ? used / gauges.pages_total : 0.0);
  metrics_->Set(Metric::kWorkerUp, {"target"}, gauges.target_up ? 1 : 0);
  metrics_->Set(Metric::kWorkerUp, {"draft"}, gauges.draft_up ? 1 : 0);
  metrics_->Set(Metric::kSpecDraftLength, gauges.mean_draft_length);
}

void MetricsObserver::OnConnected(Role role, const WorkerDescription& worker,
                                  const ConnectionInfo& info) {
  const char* name = RoleName(role);
  metrics_->Set(Metric::kModelInfo, {name, worker.name, worker.quantization}, 1);
  metrics_->Set(Metric::kVramBytes, {name, "weights"}, static_cast<double>(worker.weight_bytes));
  metrics_->Set(Metric::kVramBytes, {name, "workspace"},
                static_cast<double>(worker.workspace_bytes));
  metrics_->Set(Metric::kVramBytes, {name, "other"}, static_cast<double>(worker.other_bytes));
  metrics_->Set(Metric::kVramBytes, {name, "kv"},
                static_cast<double>(worker.num_pages) * static_cast<double>(worker.page_bytes));
  if (info.is_restart) {
    metrics_->Add(Metric::kWorkerRestarts, {name, info.had_hung ? "hang" : "crash"});
    LogInfo(absl::StrCat("the ", name, " is back"));
  }
  LogDebug(absl::StrCat("connected to the ", name, ": ", worker.name, " ", worker.quantization,
                        ", steps by ", info.is_ring ? "ring" : "gRPC"));
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
  const char* reason = call.code == "RESOURCE_EXHAUSTED" ? "queue_full"
                       : call.code == "INVALID_ARGUMENT" ? "invalid"
                       : call.code == "NOT_FOUND"        ? "not_found"
                       : call.code == "ALREADY_EXISTS"   ? "duplicate"
                       : call.code == "UNAVAILABLE"      ? "unavailable"
                                                         : nullptr;
  if (call.is_rejected && reason != nullptr) metrics_->Add(Metric::kRequestsRejected, {reason});
}

}  // namespace tandem::gateway
