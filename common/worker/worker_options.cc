#include "common/worker/worker_options.h"

#include <map>
#include <thread>

#include "CLI/CLI.hpp"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace tandem::worker {
namespace {

const std::map<std::string, KvType>& KvTypes() {
  static const auto* const types = new std::map<std::string, KvType>{
      {"f16", KvType::kF16}, {"q8", KvType::k8}, {"q4", KvType::k4}};
  return *types;
}

const char* Name(KvType type) {
  switch (type) {
    case KvType::kF16:
      return "f16";
    case KvType::k8:
      return "q8";
    case KvType::k4:
      return "q4";
  }
  return "?";
}

// What is read as text first.
struct Names {
  std::string kv, k, v;
  std::string device = "cpu";
  std::string embedding = "host";
  std::string transport = "auto";
};

void DeclareDevice(CLI::App& app, WorkerOptions& options, Names& names) {
  app.add_option("--device", names.device, "cpu, cuda or cuda:N");
  app.add_option("--vram-budget", options.vram_budget_bytes,
                 "bytes of device memory for weights, workspace and pages of this worker")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
  app.add_flag("--nf4", options.quantize_to_nf4, "16-bit weights to NF4 when loaded (cuda)");
  app.add_option("--embedding", names.embedding, "where the embedding table is: host or device")
      ->check(CLI::IsMember({"host", "device"}));
  if (options.role != Role::kTarget) return;
  app.add_option("--pool-transport", names.transport, "how the draft gets at pages on a device")
      ->check(CLI::IsMember({"auto", "ipc", "fd", "split"}));
}

void Declare(CLI::App& app, WorkerOptions& options, Names& kv) {
  const CLI::IsMember kv_names({"f16", "q8", "q4"});
  app.add_option("--model", options.model, "GGUF of the model")->required();
  app.add_option("--listen", options.listen, "unix:/path of the gRPC socket")->required();
  app.add_option("--threads", options.threads, "0: all cores")->check(CLI::Range(0, 256));
  app.add_option("--kv", kv.kv, "KV cache: f16, q8 or q4")->check(kv_names);
  app.add_option("--kv-k", kv.k, "K alone")->check(kv_names);
  app.add_option("--kv-v", kv.v, "V alone")->check(kv_names);
  app.add_option("--ctx", options.max_positions, "positions of a sequence; 0: the model's")
      ->check(CLI::Range(0, 1 << 24));
  app.add_option("--max-step-tokens", options.max_step_tokens, "of one forward pass")
      ->check(CLI::Range(32, 8192));
  app.add_option("--max-sequences", options.max_sequences, "open at once; more are refused")
      ->check(CLI::Range(1, 65536));
  app.add_option("--allowed-uid", options.allowed_uid, "user that may map our memory; -1: ours");
  app.add_flag("--die-with-parent", options.die_with_parent, "end when the starting process does");
  app.add_flag("!--no-ring", options.use_ring, "no shared-memory ring: steps by gRPC only");
  app.add_option("--log-level", options.log_level)
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}));
  app.add_option("--restart-reason", options.restart_reason,
                 "why the process before this one ended, for the metrics")
      ->check(CLI::IsMember({"crash", "hang", "oom", "xid"}));
  DeclareDevice(app, options, kv);
  if (options.role != Role::kTarget) return;
  auto* pages = app.add_option("--kv-pages", options.num_kv_pages, "pages of the pool")
                    ->check(CLI::Range(1, 1 << 24));
  app.add_option("--kv-bytes", options.kv_bytes, "bytes of the pool; 0: four sequences")
      ->check(CLI::NonNegativeNumber)
      ->excludes(pages);
  app.add_option("--swap-space", options.swap_bytes,
                 "bytes of host memory in which pages may wait, at most a quarter of what is free; "
                 "0: none")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
  app.add_option("--page-positions", options.page_positions, "positions in a page")
      ->check(CLI::Range(8, 4096));
}

std::optional<PagesTransport> TransportOf(const std::string& name) {
  for (const PagesTransport transport :
       {PagesTransport::kIpcHandle, PagesTransport::kFileDescriptor, PagesTransport::kSplit}) {
    if (name == PagesTransportName(transport)) return transport;
  }
  return std::nullopt;  // auto
}

absl::Status Check(const WorkerOptions& options) {
  if (!absl::StartsWith(options.listen, "unix:/")) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--listen: '", options.listen, "' is no unix:/path; workers listen on unix sockets"));
  }
  if (options.page_positions % 8 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--page-positions: ", options.page_positions, " is not a multiple of 8"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string WorkerOptions::socket_path() const {
  return listen.substr(std::string("unix:").size());
}

absl::StatusOr<WorkerOptions> ParseWorkerOptions(Role role, int argc, const char* const* argv) {
  WorkerOptions options;
  options.role = role;
  Names names = {.kv = role == Role::kTarget ? "q4" : "q8"};
  CLI::App app(absl::StrCat("tandem-", RoleName(role), ": the worker that runs the ",
                            role == Role::kTarget ? "large" : "small", " model"));
  Declare(app, options, names);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return absl::OutOfRangeError(app.help());
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  options.k_type = KvTypes().at(names.k.empty() ? names.kv : names.k);
  options.v_type = KvTypes().at(names.v.empty() ? names.kv : names.v);
  options.pool_transport = TransportOf(names.transport);
  options.embedding_on_device = names.embedding == "device";
  absl::StatusOr<int32_t> device = ParseDevice(names.device);
  if (!device.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--device: ", device.status().message()));
  }
  options.cuda_device = *device;
  if (options.threads == 0) {
    options.threads = std::max(1, static_cast<int32_t>(std::thread::hardware_concurrency()));
  }
  if (absl::Status status = Check(options); !status.ok()) return status;
  return options;
}

absl::StatusOr<int32_t> ParseDevice(const std::string& device) {
  if (device == "cpu") return -1;
  if (device == "cuda") return 0;
  int32_t number = 0;
  if (absl::StartsWith(device, "cuda:") && absl::SimpleAtoi(device.substr(5), &number) &&
      number >= 0 && number < 256) {
    return number;
  }
  return absl::InvalidArgumentError(absl::StrCat("'", device, "' is none of cpu, cuda and cuda:N"));
}

std::string KvTypeName(KvType k_type, KvType v_type) {
  if (k_type == v_type) return Name(k_type);
  return absl::StrCat(Name(k_type), "/", Name(v_type));
}

}  // namespace tandem::worker
