#include "common/worker/swap_space.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/telemetry/log.h"
#include "common/worker/worker_process.h"

namespace tandem::worker {
namespace {

constexpr int64_t kBlockBytes = int64_t{64} << 20;
constexpr int64_t kMaxPages = 1 << 24;  // as of a pool

}  // namespace

int64_t SwapSpaceBytes(int64_t wanted_bytes, int64_t available_bytes) {
  return std::max<int64_t>(0, std::min(wanted_bytes, available_bytes / 4));
}

SwapSpace::SwapSpace(std::unique_ptr<PageCopier> copier, const KvMemory& pool, int64_t num_bytes)
    : copier_(std::move(copier)), pool_(pool) {
  TANDEM_CHECK(pool.page_bytes > 0);
  num_pages_ = static_cast<int32_t>(std::min(num_bytes / pool.page_bytes, kMaxPages));
  block_pages_ =
      static_cast<int32_t>(std::clamp(kBlockBytes / pool.page_bytes, int64_t{1}, kMaxPages));
  blocks_.resize((num_pages_ + block_pages_ - 1) / block_pages_);
}

absl::Status SwapSpace::Run(absl::Span<const PageCopy> copies) {
  RETURN_IF_ERROR(Check(copies));
  for (const PageCopy& copy : copies) RETURN_IF_ERROR(TakeMemoryFor(copy.swap_page));
  absl::Status status;
  for (const PageCopy& copy : copies) {
    status = Start(copy);
    if (!status.ok()) break;
  }
  // Those that were begun have to end, whatever became of the others.
  status.Update(copier_->Finish());
  return status;
}

absl::Status SwapSpace::Check(absl::Span<const PageCopy> copies) const {
  for (const PageCopy& copy : copies) {
    const auto page = static_cast<int32_t>(copy.page);
    if (page < 0 || page >= pool_.num_pages) {
      return absl::InvalidArgumentError(
          absl::StrCat("a copy names page ", page, ", the pool has ", pool_.num_pages));
    }
    if (copy.swap_page < 0 || copy.swap_page >= num_pages_) {
      return absl::InvalidArgumentError(absl::StrCat("a copy names swap page ", copy.swap_page,
                                                     ", --swap-space has room for ", num_pages_));
    }
  }
  return absl::OkStatus();
}

absl::Status SwapSpace::TakeMemoryFor(int32_t swap_page) {
  const int32_t index = swap_page / block_pages_;
  if (blocks_[index] != nullptr) return absl::OkStatus();
  const int64_t pages = std::min(block_pages_, num_pages_ - index * block_pages_);
  const int64_t num_bytes = pages * pool_.page_bytes;
  // Asked before: where a cgroup has no more, it is not the allocation that fails.
  const int64_t available_bytes = AvailableMemoryBytes();
  if (num_bytes > available_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("swap pages need another ", num_bytes >> 20, " MiB of host memory beside ",
                     held_bytes_ >> 20, ", ", available_bytes >> 20,
                     " MiB are available: serve with a smaller --swap-space"));
  }
  ASSIGN_OR_RETURN(blocks_[index], copier_->Allocate(num_bytes));
  held_bytes_ += num_bytes;
  LogInfo(absl::StrCat("swap pages take ", held_bytes_ >> 20, " MiB of host memory, up to ",
                       (num_pages_ * pool_.page_bytes) >> 20));
  return absl::OkStatus();
}

absl::Status SwapSpace::Start(const PageCopy& copy) {
  uint8_t* page = pool_.base + static_cast<int64_t>(copy.page) * pool_.page_bytes;
  uint8_t* place = blocks_[copy.swap_page / block_pages_].get() +
                   copy.swap_page % block_pages_ * pool_.page_bytes;
  return copy.to_host ? copier_->Start(place, page, pool_.page_bytes)
                      : copier_->Start(page, place, pool_.page_bytes);
}

}  // namespace tandem::worker
