#include "common/worker/page_copier.h"

#include <cstring>
#include <new>

#include "absl/strings/str_cat.h"

namespace tandem::worker {
namespace {

class HostPageCopier final : public PageCopier {
 public:
  absl::StatusOr<std::shared_ptr<uint8_t[]>> Allocate(int64_t num_bytes) override {
    // Zeros take the memory: what is only promised may be missing when it is written.
    std::shared_ptr<uint8_t[]> memory(new (std::nothrow) uint8_t[static_cast<size_t>(num_bytes)]());
    if (memory != nullptr) return memory;
    return absl::ResourceExhaustedError(
        absl::StrCat("the system has no ", num_bytes >> 20, " MiB of memory"));
  }

  absl::Status Start(uint8_t* to, const uint8_t* from, int64_t num_bytes) override {
    std::memcpy(to, from, static_cast<size_t>(num_bytes));
    return absl::OkStatus();
  }

  absl::Status Finish() override { return absl::OkStatus(); }
};

}  // namespace

std::unique_ptr<PageCopier> NewHostPageCopier() { return std::make_unique<HostPageCopier>(); }

}  // namespace tandem::worker
