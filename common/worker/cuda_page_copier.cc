#include <cuda_runtime_api.h>

#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"
#include "common/device/pinned_memory.h"
#include "common/worker/page_copier.h"

namespace tandem::worker {
namespace {

constexpr absl::Duration kDeviceTimeout = absl::Seconds(60);  // as of a forward pass

class CudaPageCopier final : public PageCopier {
 public:
  explicit CudaPageCopier(int32_t device) : device_(device) {}
  ~CudaPageCopier() override {
    if (stream_ == nullptr) return;
    cudaSetDevice(device_);
    cudaStreamDestroy(stream_);
  }

  absl::StatusOr<std::shared_ptr<uint8_t[]>> Allocate(int64_t num_bytes) override {
    RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device_), "choosing the device"));
    ASSIGN_OR_RETURN(
        PinnedBuffer pinned,
        PinnedBuffer::Allocate(num_bytes, "swap pages", "a smaller --swap-space needs less of it"));
    const auto buffer = std::make_shared<PinnedBuffer>(std::move(pinned));
    return std::shared_ptr<uint8_t[]>(buffer, buffer->data());
  }

  absl::Status Start(uint8_t* to, const uint8_t* from, int64_t num_bytes) override {
    RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device_), "choosing the device"));
    if (stream_ == nullptr) {
      RETURN_IF_ERROR(CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                                 "making a stream"));
    }
    return CudaStatus(
        cudaMemcpyAsync(to, from, static_cast<size_t>(num_bytes), cudaMemcpyDefault, stream_),
        "copying swap pages");
  }

  absl::Status Finish() override {
    if (stream_ == nullptr) return absl::OkStatus();
    const absl::Duration begin = Clock::Steady().Now();
    while (true) {
      const cudaError_t state = cudaStreamQuery(stream_);
      if (state != cudaErrorNotReady) return CudaStatus(state, "copying swap pages");
      if (Clock::Steady().Now() - begin > kDeviceTimeout) {
        return absl::DeadlineExceededError("the device did not copy swap pages in 60 s");
      }
      absl::SleepFor(absl::Microseconds(20));  // a page takes some 40
    }
  }

 private:
  const int32_t device_;
  cudaStream_t stream_ = nullptr;  // made with the first copy
};

}  // namespace

std::unique_ptr<PageCopier> NewCudaPageCopier(int32_t device) {
  return std::make_unique<CudaPageCopier>(device);
}

}  // namespace tandem::worker
