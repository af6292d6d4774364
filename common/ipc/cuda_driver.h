// The functions of the CUDA driver that the runtime does not offer, looked up when needed, so
// that nothing links the driver's library. Private to ipc/.
#pragma once

#include <cuda.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tandem::internal {

// Virtual memory management; all null where the driver has none of it.
struct CudaDriver {
  decltype(&cuMemCreate) mem_create = nullptr;
  decltype(&cuMemRelease) mem_release = nullptr;
  decltype(&cuMemAddressReserve) address_reserve = nullptr;
  decltype(&cuMemAddressFree) address_free = nullptr;
  decltype(&cuMemMap) map = nullptr;
  decltype(&cuMemUnmap) unmap = nullptr;
  decltype(&cuMemSetAccess) set_access = nullptr;
  decltype(&cuMemGetAllocationGranularity) granularity = nullptr;
  decltype(&cuMemExportToShareableHandle) export_handle = nullptr;
  decltype(&cuMemImportFromShareableHandle) import_handle = nullptr;
  decltype(&cuDeviceGetAttribute) device_attribute = nullptr;
};

// FAILED_PRECONDITION naming the function that the driver lacks.
absl::StatusOr<CudaDriver> LoadCudaDriver();

// As CudaStatus, for the driver's own errors.
absl::Status DriverStatus(CUresult result, const char* doing);

}  // namespace tandem::internal
