#include "cli/doctor.h"

#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "cli/card_fit.h"
#include "cli/exit_codes.h"
#include "cli/gateway_client.h"
#include "cli/start_plan.h"
#include "common/base/host_memory.h"
#include "common/base/limits.h"
#include "common/base/status_macros.h"
#include "common/device/nvml.h"
#include "common/device/visible_devices.h"

namespace tandem {
namespace {

// Prints one line for each check and remembers whether one failed.
class Report {
 public:
  void Line(std::string_view name, const absl::StatusOr<std::string>& result) {
    if (result.ok()) {
      std::printf("ok    %-10s %s\n", std::string(name).c_str(), result->c_str());
    } else {
      has_failed_ = true;
      std::printf("FAIL  %-10s %s\n", std::string(name).c_str(),
                  std::string(result.status().message()).c_str());
    }
  }
  bool has_failed() const { return has_failed_; }

 private:
  bool has_failed_ = false;
};

absl::StatusOr<std::string> CheckProcessor() {
  std::string features;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) features += " AVX2";
  if (__builtin_cpu_supports("avx512vnni")) features += " AVX-512 VNNI";
  if (features.empty()) {
    return absl::FailedPreconditionError("neither AVX2 nor AVX-512: it will work, but slowly");
  }
#endif
  return absl::StrFormat("%d cores%s", static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)), features);
}

absl::StatusOr<std::string> CheckMemory() {
  const HostMemory memory = ReadHostMemory();
  return absl::StrFormat("%.1f GiB free of %.1f", memory.available_bytes / kGiB,
                         memory.total_bytes / kGiB);
}

// The page pool is a memfd passed over a unix socket: make one, to be sure.
absl::StatusOr<std::string> CheckSharedMemory() {
  const int fd = memfd_create("tandem-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) {
    return absl::ErrnoToStatus(errno, "memfd_create failed: the page pool needs it");
  }
  const bool is_ok = ftruncate(fd, 1 << 20) == 0;
  close(fd);
  if (!is_ok) return absl::ErrnoToStatus(errno, "a memfd cannot be given a size");
  return std::string("memfd works");
}

// Whether it is a Tandem server that has the port, and what it does: NOT_FOUND when it is another
// program, or one that speaks TLS.
absl::StatusOr<std::string> ServerOnPort(int port) {
  const absl::Duration timeout = absl::Seconds(3);
  const absl::StatusOr<std::unique_ptr<GatewayClient>> client =
      GatewayClient::Connect(absl::StrCat("127.0.0.1:", port), {}, timeout);
  if (client.ok()) {
    const absl::StatusOr<gateway::v1::GetModelResponse> model = (*client)->GetModel(timeout);
    if (model.ok()) return absl::StrCat("serves ", model->model());
    // What it answers while it starts; another gRPC server has no such method.
    if (absl::IsUnavailable(model.status())) return std::string("takes no requests yet");
  }
  return absl::NotFoundError("no Tandem server answers in plaintext");
}

absl::StatusOr<std::string> CheckPort(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::ErrnoToStatus(errno, "no socket can be made");
  const int reuse = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int result = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  const int error = errno;
  close(fd);
  if (result != 0 && error == EADDRINUSE) {
    const absl::StatusOr<std::string> server = ServerOnPort(port);
    if (server.ok()) {
      return absl::StrFormat("127.0.0.1:%d: a Tandem server %s; memory is what it leaves", port,
                             *server);
    }
    return absl::AlreadyExistsError(
        absl::StrFormat("127.0.0.1:%d is taken, and %s there: give `tandem serve` another with "
                        "--listen; if it is a server with TLS, leave this out with --port 0",
                        port, server.status().message()));
  }
  if (result != 0) {
    return absl::ErrnoToStatus(
        error, absl::StrFormat("127.0.0.1:%d: give `tandem serve` another with --listen", port));
  }
  if (port == 0) return std::string("not looked at, but sockets work");
  return absl::StrFormat("127.0.0.1:%d is free", port);
}

// A machine without a GPU is fine: it is told. GPUs are numbered as --device does.
absl::StatusOr<std::string> CheckGpu(const std::string& device) {
  const absl::StatusOr<std::unique_ptr<Nvml>> nvml = Nvml::Open();
  if (!nvml.ok()) {
    if (device != "cpu") return nvml.status();
    return absl::StrCat("none: ", nvml.status().message());
  }
  const std::string visible = VisibleDevices();
  std::string text;
  for (int32_t number = 0; number < (*nvml)->num_gpus(); ++number) {
    const absl::StatusOr<int32_t> gpu = MachineDevice(number, visible);
    if (!gpu.ok()) break;  // others are not shown
    ASSIGN_OR_RETURN(const GpuFacts facts, (*nvml)->Facts(*gpu));
    absl::StrAppendFormat(&text, "%scuda:%d %s, %.1f GiB free of %.1f", number == 0 ? "" : "; ",
                          number, facts.name, facts.free_bytes / kGiB, facts.total_bytes / kGiB);
  }
  if (!visible.empty()) absl::StrAppend(&text, " (", kVisibleDevices, "=", visible, ")");
  return text;
}

// CUDA's memory handles use it for events between processes.
absl::StatusOr<std::string> CheckShm() {
  struct statvfs found = {};
  if (statvfs("/dev/shm", &found) != 0) {
    return absl::ErrnoToStatus(errno, "/dev/shm: mount a tmpfs there");
  }
  const double free_mib = static_cast<double>(found.f_bavail) * found.f_frsize / kMiB;
  if (free_mib < 1) return absl::ResourceExhaustedError("/dev/shm is full: free some of it");
  return absl::StrFormat("/dev/shm has %.0f MiB", free_mib);
}

std::string FitLine(const DoctorOptions& options, const StartPlan& plan) {
  std::string text = absl::StrFormat("weights %.0f MiB, pages %.0f MiB, spare %.1f GiB",
                                     (plan.target_bytes + plan.draft_bytes) / kMiB,
                                     plan.pool_bytes / kMiB, plan.spare_bytes() / kGiB);
  if (options.device != "cpu") {
    absl::StrAppendFormat(&text, " of %.1f of %s", plan.available_bytes / kGiB, plan.gpu_name);
  }
  return text;
}

// What each further row of a verify costs on a CPU, in plain steps: five rows take 1.8 of one
// (bench/results/cpu_forward.md). On a GPU the first eight cost the same.
constexpr double kCpuRowCost = 0.2;

// Tokens a second over those of plain decoding, at the best draft length, when each draft token
// is right with `acceptance`, costs `cost` of a plain step to draft and `row_cost` to verify.
// bench/plot_drafts.py draws the same; a test compares them.
double PredictedSpeedUp(double cost, double row_cost, double acceptance) {
  double best = 1.0;
  double tokens = 1.0;
  double survives = 1.0;
  for (int length = 1; length <= kMaxDraftLength; ++length) {
    survives *= acceptance;
    tokens += survives;
    best = std::max(best, tokens / (1.0 + (cost + row_cost) * length));
  }
  return best;
}

std::string SpeedLine(const DoctorOptions& options, const StartPlan& plan) {
  const double cost = 1.0 * plan.draft_bytes / plan.target_bytes;
  const double row_cost = options.device == "cpu" ? kCpuRowCost : 0.0;
  std::string text = absl::StrFormat(
      "a draft token reads %.2f of the target's weights and takes %.2f of a step to verify:", cost,
      row_cost);
  for (const double acceptance : {0.5, 0.65, 0.8}) {
    absl::StrAppendFormat(&text, "%s %.2fx at acceptance %.2f", acceptance == 0.5 ? "" : ",",
                          PredictedSpeedUp(cost, row_cost, acceptance), acceptance);
  }
  return absl::StrCat(text, " (predicted for one stream; `bench/speculation.py` measures)");
}

// Whether the models fit, whether they belong together, and what that may gain.
void CheckModels(const DoctorOptions& options, Report* report) {
  if (!options.draft.empty()) {
    const absl::StatusOr<VocabularyDifference> pair = CheckPair(options.target, options.draft);
    report->Line("pair", pair.ok() ? absl::StatusOr<std::string>(pair->ToString()) : pair.status());
    if (!pair.ok()) return;
  }
  ServeOptions serve;
  serve.target = options.target;
  serve.draft = options.draft;
  serve.device = options.device;
  serve.vram_budget_bytes = options.vram_budget_bytes;
  serve.dry_run = true;
  const absl::StatusOr<StartPlan> plan = MakeStartPlan(serve);
  if (!plan.ok()) return report->Line("fit", plan.status());
  report->Line("fit", FitLine(options, *plan));
  if (plan->draft_bytes > 0) report->Line("speed", SpeedLine(options, *plan));
}

}  // namespace

int RunDoctor(const DoctorOptions& options) {
  if (options.show_fit) {
    const absl::StatusOr<std::string> table = CardFitTable(options.target, options.draft);
    if (!table.ok()) return Fail(kExitModelFile, table.status());
    std::printf("%s", table->c_str());
    return kExitOk;
  }
  Report report;
  report.Line("processor", CheckProcessor());
  report.Line("memory", CheckMemory());
  report.Line("shared", CheckSharedMemory());
  report.Line("gpu", CheckGpu(options.vram_budget_bytes > 0 ? "cpu" : options.device));
  report.Line("shm", CheckShm());
  report.Line("port", CheckPort(options.port));
  if (!options.target.empty()) CheckModels(options, &report);
  return report.has_failed() ? kExitFailure : kExitOk;
}

}  // namespace tandem
