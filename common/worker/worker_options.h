// What a worker is told on its command line, and what it exits with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/ipc/device_pages.h"
#include "common/kernels/kv_layout.h"

namespace tandem::worker {

// Exit codes of a worker; the same numbers as those of `tandem` (cli/exit_codes.h).
enum ExitCode : int {
  kExitOk = 0,
  kExitUsage = 2,
  kExitModelFile = 3,
  kExitMemory = 4,
  kExitSocket = 5,
  kExitDevice = 7,
};

inline constexpr int32_t kDefaultPagePositions = 32;  // of the target
inline constexpr int32_t kDefaultMaxPositions = 8192;

struct WorkerOptions {
  Role role = Role::kTarget;
  std::string model;    // GGUF
  std::string listen;   // "unix:/path"
  int32_t threads = 0;  // 0: the machine's cores
  KvType k_type = KvType::k4;
  KvType v_type = KvType::k4;
  int32_t max_positions = 0;  // of a sequence; 0: the model's, at most kDefaultMaxPositions
  int32_t max_step_tokens = 256;
  int32_t max_sequences = 256;
  int64_t allowed_uid = -1;  // -1: our own
  bool die_with_parent = false;
  bool use_ring = true;
  std::string log_level = "info";
  std::string restart_reason;        // why the one before us ended; empty: not known, or none
  int32_t cuda_device = -1;          // -1: the CPU
  int64_t vram_budget_bytes = 0;     // this worker's allocations on the device in sum; 0: no limit
  bool quantize_to_nf4 = false;      // 16-bit weights, on CUDA
  bool embedding_on_device = false;  // else in pinned host memory, on CUDA

  // Target only.
  int32_t num_kv_pages = 0;  // 0: from kv_bytes
  int64_t kv_bytes = 0;      // 0: pages for four sequences of max_positions
  int64_t swap_bytes = 0;    // of host memory for pages that wait, at most; 0: none
  int32_t page_positions = kDefaultPagePositions;
  int32_t num_draft_probs_slots = 64;
  std::optional<PagesTransport> pool_transport;  // on CUDA; none: what the device supports

  // The path of `listen`, and of the sockets beside it that hand out descriptors.
  std::string socket_path() const;
  std::string pool_socket_path() const { return socket_path() + ".pool"; }
  std::string ring_socket_path() const { return socket_path() + ".ring"; }
};

// Reads the command line of the worker of `role`. INVALID_ARGUMENT names the flag;
// OUT_OF_RANGE carries the text of --help, which is no error.
absl::StatusOr<WorkerOptions> ParseWorkerOptions(Role role, int argc, const char* const* argv);

// The device of "cpu", "cuda" or "cuda:1": -1 or its number. INVALID_ARGUMENT for anything else.
absl::StatusOr<int32_t> ParseDevice(const std::string& device);

// "f16", "q8" or "q4", or both where K and V differ: "q8/q4".
std::string KvTypeName(KvType k_type, KvType v_type);

}  // namespace tandem::worker
