// KV pages in the memory of a CUDA device.
//
// kIpcHandle: cudaMalloc and cudaIpcGetMemHandle. kFileDescriptor: cuMemCreate, whose
// descriptor travels beside the control block; that memory lives as long as any process has
// it. The driver's functions are looked up at run time: a program that links this starts on
// machines without a GPU.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "common/device/device_memory.h"
#include "common/ipc/device_pages.h"

namespace tandem {

// Device `device` of this process. Made pages count as KV pages in `ledger` (borrowed, must
// outlive them); opened ones are their maker's, except those of kSplit. Makes the device's
// context. FAILED_PRECONDITION when there is no such device or no driver for it.
absl::StatusOr<std::unique_ptr<PagesDevice>> OpenCudaPagesDevice(int32_t device,
                                                                 DeviceLedger* ledger);

}  // namespace tandem
