// All that a running target holds.
#pragma once

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "common/ipc/pool_exchange.h"
#include "common/worker/model_loader.h"
#include "common/worker/worker_options.h"
#include "services/target/target_engine.h"
#include "services/target/target_info.h"

namespace tandem::target {

// The model, the pool with the socket that hands it out, and the engine on both. Not
// movable: its parts point at each other.
class TargetWorker {
 public:
  // RESOURCE_EXHAUSTED when the pool does not fit, INVALID_ARGUMENT for options that
  // contradict the model; else as PoolServer::Start.
  static absl::StatusOr<std::unique_ptr<TargetWorker>> Create(const worker::WorkerOptions& options,
                                                              worker::LoadedModel model);

  TargetEngine* engine() { return &*engine_; }
  const TargetInfo& info() const { return info_; }
  int64_t pool_bytes() const { return info_.page_bytes * info_.num_pages; }

 private:
  TargetWorker() = default;

  std::unique_ptr<worker::WorkerDevice> device_;  // null for the tests' fakes
  std::unique_ptr<Executor> executor_;
  SharedPool pool_;
  std::unique_ptr<PoolServer> pool_server_;
  std::unique_ptr<worker::SwapSpace> swap_space_;  // null: none is asked for
  std::optional<TargetEngine> engine_;
  TargetInfo info_;
};

}  // namespace tandem::target
