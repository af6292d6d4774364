// What the target tells about itself.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/time/time.h"
#include "common/worker/worker_device.h"

namespace tandem::target {

// The fields mean what they mean in proto/tandem/target/v1.
struct TargetInfo {
  std::string model_name;
  std::string quantization;
  int64_t num_parameters = 0;
  int32_t vocab_size = 0;
  int32_t context_length = 0;
  std::string device_name;
  std::string kv_type;
  std::string model_path;
  int64_t weight_bytes = 0;
  int64_t workspace_bytes = 0;
  std::string pool_socket_path;
  int64_t pool_epoch = 0;
  int32_t num_pages = 0;
  int64_t page_bytes = 0;
  int32_t positions_per_page = 0;
  int32_t num_swap_pages = 0;
  int32_t max_step_tokens = 0;
  int32_t max_logits_rows = 0;
  int32_t max_sequences = 0;
  int64_t incarnation = 0;
  std::string ring_name;
  std::string model_fingerprint;
  std::string restart_reason;
  absl::Duration map, upload, warmup;
  bool is_cuda = false;
  // Of the device, as it is now; empty on the CPU.
  std::function<worker::DeviceMemory()> memory;
};

}  // namespace tandem::target
