// What a connected worker said of itself.
#pragma once

#include <cstdint>
#include <string>

#include "services/gateway/engine/worker_link.h"

namespace tandem::gateway {

inline constexpr char kHostDevice[] = "cpu";  // its memory is the host's

struct WorkerDescription {
  std::string name;
  std::string architecture;
  std::string quantization;
  int64_t num_parameters = 0;
  std::string device;
  std::string device_name;  // the target's: "NVIDIA H100 80GB HBM3"
  std::string kv_type;
  std::string model_path;
  int64_t weight_bytes = 0;
  int64_t workspace_bytes = 0;
  int64_t other_bytes = 0;
  int64_t incarnation = 0;             // of the process
  std::string restart_reason;          // why the process before it ended, where somebody knows
  absl::Duration map, upload, warmup;  // that it took to start, one after the other
  std::string ring_path;               // empty: steps go by gRPC
  std::string build_version, build_commit, build_cuda;
  WorkerFacts facts;  // `incarnation` in it is the link's, of the session

  // The target's: which model it is, and what it hands out; 0 and empty for the draft.
  std::string model_fingerprint;
  std::string pool_socket_path;
  int64_t pool_epoch = 0;
  int32_t num_pages = 0;
  int64_t page_bytes = 0;
  // Of its device; 0 where that has no memory of its own.
  int64_t device_total_bytes = 0;
  int64_t device_free_bytes = 0;
};

}  // namespace tandem::gateway
