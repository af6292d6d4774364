// Counts what engine, links and calls report.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "common/telemetry/metrics.h"
#include "services/gateway/engine/engine_observer.h"
#include "services/gateway/links/link_events.h"

namespace tandem::gateway {

// A call that ended, of any method.
struct CallInfo {
  const char* method = "";
  std::string code;    // of gRPC
  std::string reason;  // of its ErrorInfo; may be empty
  const char* finish_reason = "none";
  bool is_rejected = true;  // if it failed: before it had begun
  absl::Duration duration;
  // Of Generate, for the log.
  std::string request_id;
  std::string traceparent;
};

// Thread-safe; `metrics` is borrowed.
class MetricsObserver final : public EngineObserver, public LinkObserver {
 public:
  explicit MetricsObserver(Metrics* metrics);

  void OnStep(const StepInfo& info) override;
  void OnSequenceStep(const SequenceStepInfo& info) override;
  void OnFirstToken(absl::Duration queue, absl::Duration time_to_first_token) override;
  void OnInterTokenLatency(absl::Duration since_last_commit, int32_t num_tokens) override;
  void OnFinished(const FinishedInfo& info) override;
  void OnFailed(const absl::Status& status) override;
  void OnPrefixLookup(Role role, int32_t num_tokens, int32_t num_cached) override;
  void OnPressure(PressureRung rung, int32_t count) override;
  void OnSwapped(int32_t num_pages, bool to_host) override;
  void OnWorkerLost(Role role, const absl::Status& status) override;
  void OnGauges(const EngineGauges& gauges) override;

  void OnConnected(Role role, const WorkerDescription& worker, const ConnectionInfo& info) override;
  void OnLost(Role role, const absl::Status& status) override;
  // Tells the supervisor, which ends the process and starts another.
  void OnHung(Role role) override;
  void OnAskedAgain(Role role, const WorkerDescription& worker) override;
  void OnRefused(Role role, const absl::Status& status) override;
  void OnRingFailed(Role role, const absl::Status& status) override;

  void OnCall(const CallInfo& call);
  // A message of a stream was taken by the connection after `waited`; see EventName.
  void OnSent(const char* event, absl::Duration waited);
  // Text that waits for clients grew by so many bytes, or shrank.
  void OnBuffered(int64_t num_bytes);
  // How many requests there may be in steps, and in the queue.
  void OnLimits(int32_t max_running, int32_t max_waiting);
  void OnReady(bool is_ready) { metrics_->Set(Metric::kReady, is_ready ? 1 : 0); }

 private:
  // Memory of the device as workers told it, in bytes.
  struct Memory {
    std::atomic<int64_t> of_role[kNumRoles] = {};  // all but the pool
    std::atomic<int64_t> budget_of_role[kNumRoles] = {};
    std::atomic<int64_t> pool = 0;
    std::atomic<int64_t> page = 0;
    // Of the device; total 0: it is the host's.
    std::atomic<int64_t> device_total = 0;
    std::atomic<int64_t> device_free = 0;
    std::mutex mutex;
    std::string gpu;  // guarded by `mutex`; empty until a target has said it
  };
  // Adds what a round's sequences made to the metrics.
  void CountRound();
  void NoteMemory(Role role, const WorkerDescription& worker);
  static void ReportMemory(Memory& memory, Metrics* metrics);

  Metrics* metrics_;
  std::shared_ptr<Memory> memory_;  // also of the look at the metrics

  // Of a round, on the engine's thread.
  int32_t num_generated_ = 0;
  std::map<std::string_view, int32_t> num_bypassed_;  // by a reason of bypass::kAll
};

}  // namespace tandem::gateway
