// What the NVIDIA driver says of a GPU, for planning and for comparison with our own ledger.
// The library comes with the driver and is opened when asked: nothing links it, and a machine
// without a GPU has none.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace tandem {

struct GpuFacts {
  std::string name;
  std::string bus_id;  // of PCI
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;
  // What a process's context takes, estimated from the multiprocessors: 4 MiB each (measured:
  // 527 MiB of an H100's 132, 107 MiB of an RTX 4060 Ti's 34).
  int64_t context_bytes = 0;
};

// Thread-safe after Open.
class Nvml {
 public:
  // UNAVAILABLE when the library is not there or does not start.
  static absl::StatusOr<std::unique_ptr<Nvml>> Open();
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  int32_t num_gpus() const { return num_gpus_; }
  // NVML numbers GPUs by bus; CUDA does when CUDA_DEVICE_ORDER is PCI_BUS_ID.
  absl::StatusOr<GpuFacts> Facts(int32_t gpu) const;
  // Bytes of the GPU at `bus_id` that this process has; NOT_FOUND where the driver does not
  // see us (another PID namespace, MPS).
  absl::StatusOr<int64_t> OwnBytes(const std::string& bus_id) const;

 private:
  struct Functions;
  Nvml() = default;

  void* library_ = nullptr;
  std::unique_ptr<Functions> functions_;
  int32_t num_gpus_ = 0;
};

}  // namespace tandem
