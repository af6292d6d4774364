#include "common/ipc/cuda_mappings.h"

#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"

namespace tandem::internal {

CopyStream::~CopyStream() {
  if (stream_ == nullptr) return;
  cudaSetDevice(device_);
  cudaStreamDestroy(stream_);
}

absl::Status CopyStream::Copy(void* to, const void* from, size_t size, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  const absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device_), "choosing the device"));
  if (stream_ == nullptr) {
    RETURN_IF_ERROR(
        CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"));
  }
  RETURN_IF_ERROR(CudaStatus(cudaMemcpyAsync(to, from, size, cudaMemcpyDefault, stream_),
                             "copying from or to KV pages"));
  while (true) {
    const cudaError_t state = cudaStreamQuery(stream_);
    if (state != cudaErrorNotReady) return CudaStatus(state, "copying from or to KV pages");
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError("the device did not copy in time: it hangs or is busy");
    }
    absl::SleepFor(absl::Microseconds(50));
  }
}

OpenedPages::~OpenedPages() {
  cudaSetDevice(device_);
  cudaIpcCloseMemHandle(base_);
}

absl::StatusOr<std::unique_ptr<DevicePages>> MappedPages::Map(const CudaDriver& driver,
                                                              int32_t device,
                                                              CUmemGenericAllocationHandle memory,
                                                              size_t size, LedgerClaim claim) {
  CUdeviceptr address = 0;
  absl::Status status = DriverStatus(driver.address_reserve(&address, size, 0, 0, 0),
                                     "reserving addresses for KV pages");
  if (!status.ok()) {
    driver.mem_release(memory);
    return status;
  }
  status = DriverStatus(driver.map(address, size, 0, memory, 0), "mapping KV pages");
  driver.mem_release(memory);
  if (!status.ok()) {
    driver.address_free(address, size);
    return status;
  }
  std::unique_ptr<MappedPages> pages(
      new MappedPages(driver, device, address, size, std::move(claim)));
  const CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device},
                                  .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  RETURN_IF_ERROR(
      DriverStatus(driver.set_access(address, size, &access, 1), "allowing access to KV pages"));
  return std::unique_ptr<DevicePages>(std::move(pages));
}

MappedPages::~MappedPages() {
  cudaSetDevice(device_);
  driver_.unmap(address_, size_);
  driver_.address_free(address_, size_);
}

}  // namespace tandem::internal
