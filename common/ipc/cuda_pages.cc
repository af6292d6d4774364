#include "common/ipc/cuda_pages.h"

#include <cuda_runtime_api.h>

#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"
#include "common/ipc/cuda_driver.h"
#include "common/ipc/cuda_mappings.h"

namespace tandem {
namespace {

using internal::CudaDriver;
using internal::DriverStatus;
using internal::MappedPages;
using internal::OpenedPages;
using internal::OwnPages;

static_assert(sizeof(cudaIpcMemHandle_t) == sizeof(DevicePagesHandle::ipc_handle));

class CudaPagesDevice : public PagesDevice {
 public:
  CudaPagesDevice(int32_t device, DeviceLedger* ledger, const cudaDeviceProp& properties)
      : device_(device), ledger_(ledger), name_(properties.name) {
    std::memcpy(uuid_, properties.uuid.bytes, sizeof(uuid_));
    if (absl::StatusOr<CudaDriver> driver = internal::LoadCudaDriver(); driver.ok()) {
      driver_ = *driver;
    }
  }

  std::string name() const override { return name_; }
  absl::Span<const uint8_t> uuid() const override { return uuid_; }

  bool Supports(PagesTransport transport) const override {
    switch (transport) {
      case PagesTransport::kIpcHandle:
        return Has(CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, false) &&
               Has(CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED, true);
      case PagesTransport::kFileDescriptor:
        return Has(CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, false);
      case PagesTransport::kSplit:
        return true;
    }
    return false;
  }

  absl::StatusOr<MadePages> Make(PagesTransport transport, int64_t num_bytes) override {
    RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device_), "choosing the device"));
    if (transport == PagesTransport::kFileDescriptor) return MakeWithDescriptor(num_bytes);
    MadePages made;
    ASSIGN_OR_RETURN(DeviceBuffer buffer,
                     DeviceBuffer::Allocate(ledger_, MemoryKind::kKvPages, num_bytes));
    if (transport == PagesTransport::kIpcHandle) {
      cudaIpcMemHandle_t handle;
      RETURN_IF_ERROR(CudaStatus(cudaIpcGetMemHandle(&handle, buffer.data()),
                                 "making an IPC handle of the KV pages"));
      std::memcpy(made.handle.ipc_handle, &handle, sizeof(handle));
    }
    made.pages = std::make_unique<OwnPages>(device_, std::move(buffer));
    return made;
  }

  absl::StatusOr<std::unique_ptr<DevicePages>> Open(const DevicePagesHandle& handle,
                                                    OwnedFd fd) override {
    RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device_), "choosing the device"));
    switch (static_cast<PagesTransport>(handle.transport)) {
      case PagesTransport::kIpcHandle: {
        cudaIpcMemHandle_t ipc_handle;
        std::memcpy(&ipc_handle, handle.ipc_handle, sizeof(ipc_handle));
        void* address = nullptr;
        const cudaError_t error =
            cudaIpcOpenMemHandle(&address, ipc_handle, cudaIpcMemLazyEnablePeerAccess);
        if (error != cudaSuccess) cudaGetLastError();
        RETURN_IF_ERROR(CudaStatus(error, "opening the target's KV pages"));
        return std::make_unique<OpenedPages>(device_, static_cast<uint8_t*>(address));
      }
      case PagesTransport::kFileDescriptor:
        return OpenDescriptor(handle, std::move(fd));
      case PagesTransport::kSplit: {
        ASSIGN_OR_RETURN(MadePages own, Make(PagesTransport::kSplit, handle.num_bytes));
        return std::move(own.pages);
      }
    }
    return absl::DataLossError(absl::StrCat("no pages come by transport ", handle.transport));
  }

 private:
  // `unknown`: for a driver that does not know the question.
  bool Has(CUdevice_attribute attribute, bool unknown) const {
    int value = 0;
    if (!driver_.has_value()) return false;
    if (driver_->device_attribute(&value, attribute, device_) != CUDA_SUCCESS) return unknown;
    return value != 0;
  }

  CUmemAllocationProp Properties() const {
    CUmemAllocationProp properties = {};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    properties.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device_};
    return properties;
  }

  // `num_bytes` rounded up to what can be mapped.
  absl::StatusOr<size_t> MappedSize(int64_t num_bytes) const {
    const CUmemAllocationProp properties = Properties();
    size_t granularity = 0;
    RETURN_IF_ERROR(DriverStatus(
        driver_->granularity(&granularity, &properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED),
        "asking for the granularity of memory"));
    if (granularity == 0) return absl::InternalError("the driver maps memory in pieces of 0");
    return (static_cast<size_t>(num_bytes) + granularity - 1) / granularity * granularity;
  }

  absl::StatusOr<MadePages> MakeWithDescriptor(int64_t num_bytes) {
    ASSIGN_OR_RETURN(const size_t size, MappedSize(num_bytes));
    ASSIGN_OR_RETURN(LedgerClaim claim,
                     LedgerClaim::Make(ledger_, MemoryKind::kKvPages, static_cast<int64_t>(size)));
    const CUmemAllocationProp properties = Properties();
    CUmemGenericAllocationHandle memory = 0;
    RETURN_IF_ERROR(DriverStatus(driver_->mem_create(&memory, size, &properties, 0),
                                 "allocating memory for KV pages"));
    int fd = -1;
    const absl::Status exported = DriverStatus(
        driver_->export_handle(&fd, memory, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0),
        "making a descriptor of the KV pages");
    MadePages made;
    made.fd = OwnedFd(fd);
    if (!exported.ok()) {
      driver_->mem_release(memory);
      return exported;
    }
    ASSIGN_OR_RETURN(made.pages,
                     MappedPages::Map(*driver_, device_, memory, size, std::move(claim)));
    return made;
  }

  absl::StatusOr<std::unique_ptr<DevicePages>> OpenDescriptor(const DevicePagesHandle& handle,
                                                              OwnedFd fd) {
    if (!driver_.has_value() || !fd.is_open()) {
      return absl::FailedPreconditionError(
          fd.is_open() ? "the CUDA driver cannot open memory by a descriptor"
                       : "the target sent no descriptor of its KV pages");
    }
    ASSIGN_OR_RETURN(const size_t size, MappedSize(handle.num_bytes));
    CUmemGenericAllocationHandle memory = 0;
    RETURN_IF_ERROR(DriverStatus(
        driver_->import_handle(&memory, reinterpret_cast<void*>(static_cast<intptr_t>(fd.get())),
                               CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR),
        "opening the target's KV pages"));
    return MappedPages::Map(*driver_, device_, memory, size, LedgerClaim());
  }

  const int32_t device_;
  DeviceLedger* const ledger_;
  const std::string name_;
  uint8_t uuid_[16];
  std::optional<CudaDriver> driver_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PagesDevice>> OpenCudaPagesDevice(int32_t device,
                                                                 DeviceLedger* ledger) {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    cudaGetLastError();
    return absl::FailedPreconditionError(
        absl::StrCat("no CUDA device can be used (", cudaGetErrorString(error),
                     "): is the driver installed, and the device visible here (nvidia-smi, "
                     "CUDA_VISIBLE_DEVICES)? --device cpu works without"));
  }
  if (device < 0 || device >= count) {
    return absl::FailedPreconditionError(
        absl::StrCat("there is no CUDA device ", device, ", this machine has ", count));
  }
  cudaDeviceProp properties;
  RETURN_IF_ERROR(CudaStatus(cudaGetDeviceProperties(&properties, device), "asking for the GPU"));
  RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device), "choosing the device"));
  RETURN_IF_ERROR(CudaStatus(cudaFree(nullptr), "making a context"));
  return std::make_unique<CudaPagesDevice>(device, ledger, properties);
}

}  // namespace tandem
