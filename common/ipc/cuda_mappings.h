// Pages of a CUDA device as this process has them mapped. Private to ipc/.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "common/device/device_memory.h"
#include "common/ipc/cuda_driver.h"
#include "common/ipc/device_pages.h"

namespace tandem::internal {

// A stream of its own for copies that are ordered with nothing else.
class CopyStream {
 public:
  explicit CopyStream(int32_t device) : device_(device) {}
  ~CopyStream();
  CopyStream(const CopyStream&) = delete;
  CopyStream& operator=(const CopyStream&) = delete;

  // Copies `size` bytes and waits for them: the device may be busy, or lost.
  absl::Status Copy(void* to, const void* from, size_t size, absl::Duration timeout);

 private:
  const int32_t device_;
  absl::Mutex mutex_;
  cudaStream_t stream_ = nullptr;
};

// What all kinds of pages have in common: their address and how to copy.
class CudaPages : public DevicePages {
 public:
  CudaPages(int32_t device, uint8_t* base) : device_(device), base_(base), stream_(device) {}

  uint8_t* base() const override { return base_; }
  absl::Status Read(int64_t offset, absl::Span<uint8_t> to, absl::Duration timeout) override {
    return stream_.Copy(to.data(), base_ + offset, to.size(), timeout);
  }
  absl::Status Write(int64_t offset, absl::Span<const uint8_t> from,
                     absl::Duration timeout) override {
    return stream_.Copy(base_ + offset, from.data(), from.size(), timeout);
  }

 protected:
  const int32_t device_;
  uint8_t* const base_;

 private:
  CopyStream stream_;
};

// cudaMalloc's, of this process.
class OwnPages : public CudaPages {
 public:
  OwnPages(int32_t device, DeviceBuffer buffer)
      : CudaPages(device, buffer.data()), buffer_(std::move(buffer)) {}

 private:
  DeviceBuffer buffer_;
};

// A peer's, by cudaIpcOpenMemHandle.
class OpenedPages : public CudaPages {
 public:
  using CudaPages::CudaPages;
  ~OpenedPages() override;
};

// Physical memory, anybody's, at an address of ours.
class MappedPages : public CudaPages {
 public:
  // Takes `memory` over: it is released once mapped, and lives as long as the mapping.
  static absl::StatusOr<std::unique_ptr<DevicePages>> Map(const CudaDriver& driver, int32_t device,
                                                          CUmemGenericAllocationHandle memory,
                                                          size_t size, LedgerClaim claim);
  ~MappedPages() override;

 private:
  MappedPages(const CudaDriver& driver, int32_t device, CUdeviceptr address, size_t size,
              LedgerClaim claim)
      : CudaPages(device, reinterpret_cast<uint8_t*>(address)),
        driver_(driver),
        address_(address),
        size_(size),
        claim_(std::move(claim)) {}

  const CudaDriver driver_;
  const CUdeviceptr address_;
  const size_t size_;
  LedgerClaim claim_;
};

}  // namespace tandem::internal
