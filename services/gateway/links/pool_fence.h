// The gateway's view of the shared pool's control block.
#pragma once

#include <mutex>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/ipc/pool_exchange.h"
#include "services/gateway/engine/worker_link.h"

namespace tandem::gateway {

// Where the pool of the present target is handed out.
struct PoolAddress {
  std::string socket_path;
  int64_t epoch = 0;
};

// The target's link publishes each new pool from its own thread; the engine's thread goes
// over to it in Facts, between two rounds, so that a page number never meets a pool that
// it was not made for.
class PoolFence final : public PageFence {
 public:
  // From any thread: the pool of the target that is connected from now on.
  void Publish(SharedPool pool, std::string socket_path);
  // From any thread: the target is gone. What is mapped stays until there is another.
  void Withdraw();
  // From any thread: the pool to attach to; none without a target.
  std::optional<PoolAddress> Current() const;

  // The engine's thread:
  absl::StatusOr<PoolFacts> Facts() override;
  void SetGeneration(PageId page, uint32_t generation) override;
  // The epoch that Facts last gave; 0 before.
  int64_t engine_epoch() const { return used_.has_value() ? used_->geometry().epoch : 0; }

 private:
  mutable std::mutex mutex_;  // of the next two
  std::optional<SharedPool> published_;
  std::optional<PoolAddress> current_;

  std::optional<SharedPool> used_;  // the engine's thread only
};

}  // namespace tandem::gateway
