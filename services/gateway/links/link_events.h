// Workers that come and go, told to whoever logs and counts it.
#pragma once

#include "absl/status/status.h"
#include "common/base/ids.h"
#include "services/gateway/links/worker_description.h"

namespace tandem::gateway {

struct ConnectionInfo {
  bool is_ring = false;     // else gRPC
  bool is_restart = false;  // another process than the last time
  bool had_hung = false;    // the last session ended because the worker did not answer
};

// Called on the threads of the links.
class LinkObserver {
 public:
  virtual ~LinkObserver() = default;
  virtual void OnConnected(Role role, const WorkerDescription& worker,
                           const ConnectionInfo& info) = 0;
  virtual void OnLost(Role role, const absl::Status& status) = 0;
  // The worker did not answer a step in time, and is still not back: its process is of no use.
  virtual void OnHung(Role role) = 0;
  // A connected worker was asked again: memory changes.
  virtual void OnAskedAgain(Role role, const WorkerDescription& worker) = 0;
  // What came back in a worker's place is not used: see WorkerLink::Facts. Once for each.
  virtual void OnRefused(Role role, const absl::Status& status) = 0;
  // Steps go by gRPC although the worker has a ring.
  virtual void OnRingFailed(Role role, const absl::Status& status) = 0;
};

}  // namespace tandem::gateway
