// What the public service works with, once it is there.
#pragma once

#include <cstdint>

#include "services/gateway/engine_thread.h"
#include "services/gateway/links/worker_links.h"
#include "services/gateway/served_model.h"
#include "services/gateway/stream_writer.h"

namespace tandem::gateway {

// Made when the target is connected and its vocabulary read; borrowed pointers outlive the
// service.
struct Backend {
  const ServedModel* model = nullptr;
  EngineThread* engine = nullptr;
  StreamWriter* writer = nullptr;  // flushed after each round of the engine
  const RemoteTargetLink* target = nullptr;
  const RemoteDraftLink* draft = nullptr;  // null: none was configured
  int32_t context_length = 0;              // largest prompt plus output
  absl::Duration stream_interval;          // between deltas of a stream, at least
  int32_t max_running = 0;
  int32_t max_waiting = 0;
  AdmissionLimits admission;
};

}  // namespace tandem::gateway
