#include "common/ipc/cuda_driver.h"

#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace tandem::internal {
namespace {

template <typename Function>
absl::Status Load(const char* name, Function* function) {
  void* pointer = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion(name, &pointer, 11020, cudaEnableDefault, &found);
#else
  const cudaError_t error = cudaGetDriverEntryPoint(name, &pointer, cudaEnableDefault, &found);
#endif
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess || pointer == nullptr) {
    cudaGetLastError();
    return absl::FailedPreconditionError(absl::StrCat("the CUDA driver has no ", name));
  }
  *function = reinterpret_cast<Function>(pointer);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CudaDriver> LoadCudaDriver() {
  CudaDriver driver;
  RETURN_IF_ERROR(Load("cuMemCreate", &driver.mem_create));
  RETURN_IF_ERROR(Load("cuMemRelease", &driver.mem_release));
  RETURN_IF_ERROR(Load("cuMemAddressReserve", &driver.address_reserve));
  RETURN_IF_ERROR(Load("cuMemAddressFree", &driver.address_free));
  RETURN_IF_ERROR(Load("cuMemMap", &driver.map));
  RETURN_IF_ERROR(Load("cuMemUnmap", &driver.unmap));
  RETURN_IF_ERROR(Load("cuMemSetAccess", &driver.set_access));
  RETURN_IF_ERROR(Load("cuMemGetAllocationGranularity", &driver.granularity));
  RETURN_IF_ERROR(Load("cuMemExportToShareableHandle", &driver.export_handle));
  RETURN_IF_ERROR(Load("cuMemImportFromShareableHandle", &driver.import_handle));
  RETURN_IF_ERROR(Load("cuDeviceGetAttribute", &driver.device_attribute));
  return driver;
}

absl::Status DriverStatus(CUresult result, const char* doing) {
  if (result == CUDA_SUCCESS) return absl::OkStatus();
  const std::string message =
      absl::StrCat("CUDA failed while ", doing, ": driver error ", static_cast<int>(result));
  if (result == CUDA_ERROR_OUT_OF_MEMORY) return absl::ResourceExhaustedError(message);
  return absl::InternalError(message);
}

}  // namespace tandem::internal
