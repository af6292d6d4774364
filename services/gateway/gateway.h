// The gateway as a whole: what is made in which order, and what happens when it stops.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "common/telemetry/metrics.h"
#include "services/gateway/backend.h"
#include "services/gateway/gateway_options.h"
#include "services/gateway/gateway_server.h"
#include "services/gateway/metrics_observer.h"
#include "services/gateway/process_events.h"
#include "services/gateway/stream_writer.h"

namespace tandem::gateway {

class Gateway {
 public:
  explicit Gateway(const GatewayOptions& options);
  ~Gateway();

  // Listens, connects, serves, and drains after a signal; the exit code. Prints the events.
  int Run(StopSignal& stop);
  // Ends the calls that are left, and the server.
  void Stop();

 private:
  // UNAVAILABLE or FAILED_PRECONDITION when an address is taken; else the options are wrong.
  absl::Status Listen();
  // False when a signal came first.
  bool WaitForTarget(StopSignal& stop);
  // Not for ever: requests are served without it, and it is used once it comes.
  void WaitForDraft(StopSignal& stop);
  absl::Status LoadModel();
  // INVALID_ARGUMENT for a draft of another vocabulary.
  absl::Status CheckDraft();
  void StartEngine();
  // Until the stop; false when the server is of no use any more.
  bool Watch(StopSignal& stop);
  void Drain();

  const GatewayOptions options_;
  Metrics metrics_;
  MetricsObserver observer_;
  std::unique_ptr<MetricsServer> metrics_server_;
  PoolFence fence_;
  std::unique_ptr<RemoteTargetLink> target_;
  std::unique_ptr<RemoteDraftLink> draft_;
  std::vector<int32_t> never_drafted_;  // ids that the draft means otherwise
  std::unique_ptr<ServedModel> model_;
  std::unique_ptr<EngineThread> engine_;
  StreamWriter writer_;
  GatewayServiceImpl service_;
  std::unique_ptr<GatewayServer> server_;
};

}  // namespace tandem::gateway
