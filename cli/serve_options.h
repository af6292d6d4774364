// What `tandem serve` is told, and the three command lines that follow from it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/time/time.h"
#include "cli/model_paths.h"
#include "cli/supervisor.h"
#include "common/rpc/security.h"

namespace tandem {

struct ServeOptions {
  std::string target;
  std::string draft;
  bool no_draft = false;
  std::string device = "cpu";     // or "cuda", "cuda:N"
  int64_t vram_budget_bytes = 0;  // of both workers, contexts included; 0: what is free
  std::string mps = "auto";
  std::string pool_transport = "auto";
  bool quantize_to_nf4 = false;
  std::string embedding = "host";
  std::string listen = "127.0.0.1:50051";
  rpc::ServerSecurity security;
  std::string metrics_listen = "127.0.0.1:9464";
  std::string socket_dir;  // empty: a new one under the system's temporary folder
  std::string target_kv = "q4";
  std::string draft_kv = "q8";
  int32_t context_tokens = 0;  // 0: the model's, at most 8192
  int32_t kv_tokens = 0;       // positions of target KV in the pool; 0: 4 contexts
  int64_t swap_bytes = -1;     // host memory for pages that wait; -1: the device's default
  int32_t threads = 0;         // of each worker; 0: the machine's cores
  int32_t max_running = 16;
  int32_t max_waiting = 256;
  std::optional<int32_t> max_requests_per_client;  // the gateway's own measure
  int64_t max_queued_tokens = 0;                   // 0: the gateway's own measure
  double slow_client_timeout_s = 30.0;
  double stream_messages = 420.0;  // a second, of all streams; 0: no limit
  double stream_interval_s = 0.0;  // of one stream, at least
  double prefill_stretch = 1.5;
  std::string pipelining = "auto";
  bool prefix_cache = true;
  double drain_timeout_s = 30.0;  // for running requests after SIGTERM
  std::string log_level = "info";
  bool dry_run = false;
};

// Declares the options of `serve` on `command`.
void AddServeOptions(CLI::App& command, ServeOptions& options);

// What the workers will be given, resolved against the model files.
struct ResolvedServe {
  ModelPair models;
  std::string socket_dir;
  int32_t context_tokens = 0;
  int32_t num_kv_tokens = 0;  // positions of target KV, with the draft's for the same tokens
  int32_t num_kv_pages = 0;
  int32_t page_positions = 0;  // of the target, in a page
  int64_t swap_bytes = 0;  // the target cuts it to a quarter of the memory that is free
  int32_t threads = 0;
  // What each worker may allocate on a GPU; 0: no limit.
  int64_t target_budget_bytes = 0;
  int64_t draft_budget_bytes = 0;
};

// Target, draft (unless there is none) and gateway, in the order to start them.
std::vector<ProcessSpec> MakeProcessSpecs(const ServeOptions& options,
                                          const ResolvedServe& resolved);

}  // namespace tandem
