// CUDA_VISIBLE_DEVICES: which of a machine's GPUs a process sees, and how it counts them.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tandem {

inline constexpr char kVisibleDevices[] = "CUDA_VISIBLE_DEVICES";

// The variable of this process; empty where it is not set.
std::string VisibleDevices();

// What clients of a multi-process service must be given whose daemon was given `visible`: they
// count among the GPUs that it shows them ("2,3": "0,1"). UUIDs name the same GPU to both.
std::string VisibleToMpsClients(absl::string_view visible);

// The machine's number of the GPU that CUDA calls `device` where `visible` holds (empty: all are
// seen): where it lists numbers, else `device` itself. NOT_FOUND when the list is shorter.
absl::StatusOr<int32_t> MachineDevice(int32_t device, absl::string_view visible);

}  // namespace tandem
