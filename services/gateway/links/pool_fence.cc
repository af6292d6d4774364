#include "services/gateway/links/pool_fence.h"

#include <utility>

#include "common/base/check.h"

namespace tandem::gateway {

void PoolFence::Publish(SharedPool pool, std::string socket_path) {
  const std::lock_guard lock(mutex_);
  current_ = PoolAddress{std::move(socket_path), pool.geometry().epoch};
  published_ = std::move(pool);
}

void PoolFence::Withdraw() {
  const std::lock_guard lock(mutex_);
  current_.reset();
}

std::optional<PoolAddress> PoolFence::Current() const {
  const std::lock_guard lock(mutex_);
  return current_;
}

absl::StatusOr<PoolFacts> PoolFence::Facts() {
  {
    const std::lock_guard lock(mutex_);
    if (!current_.has_value()) return absl::UnavailableError("the target's pool is not mapped");
    if (published_.has_value()) {
      used_ = std::move(published_);
      published_.reset();
    }
  }
  const PoolGeometry& geometry = used_->geometry();
  return PoolFacts{.epoch = geometry.epoch,
                   .num_pages = geometry.num_pages,
                   .num_draft_probs_slots = geometry.num_draft_probs_slots};
}

void PoolFence::SetGeneration(PageId page, uint32_t generation) {
  TANDEM_CHECK(used_.has_value());
  used_->control().SetGeneration(page, generation);
}

}  // namespace tandem::gateway
