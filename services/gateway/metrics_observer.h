// Counts what engine, links and calls report.
#pragma once

#include <string>

#include "common/telemetry/metrics.h"
#include "services/gateway/engine/engine_observer.h"
#include "services/gateway/links/link_events.h"

namespace tandem::gateway {

// A call that ended, of any method.
struct CallInfo {
  const char* method = "";
  std::string code;  // of gRPC
  const char* finish_reason = "none";
  bool is_rejected = true;  // if it failed: before it had begun
  absl::Duration duration;
};

// Thread-safe; `metrics` is borrowed.
class MetricsObserver final : public EngineObserver, public LinkObserver {
 public:
  explicit MetricsObserver(Metrics* metrics) : metrics_(metrics) {}

  void OnStep(const StepInfo& info) override;
  void OnSequenceStep(const SequenceStepInfo& info) override;
  void OnFirstToken(absl::Duration queue, absl::Duration time_to_first_token) override;
  void OnInterTokenLatency(absl::Duration since_last_commit, int32_t num_tokens) override;
  void OnFinished(const FinishedInfo& info) override;
  void OnFailed(const absl::Status& status) override;
  void OnPrefixLookup(Role role, int32_t num_tokens, int32_t num_cached) override;
  void OnPreemption(std::string_view reason) override;
  void OnWorkerLost(Role role, const absl::Status& status) override;
  void OnGauges(const EngineGauges& gauges) override;

  void OnConnected(Role role, const WorkerDescription& worker, const ConnectionInfo& info) override;
  void OnLost(Role role, const absl::Status& status) override;
  void OnRefused(Role role, const absl::Status& status) override;
  void OnRingFailed(Role role, const absl::Status& status) override;

  void OnCall(const CallInfo& call);
  void OnReady(bool is_ready) { metrics_->Set(Metric::kReady, is_ready ? 1 : 0); }

 private:
  Metrics* metrics_;
};

}  // namespace tandem::gateway
