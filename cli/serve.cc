#include "cli/serve.h"

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "cli/exit_codes.h"
#include "cli/mps.h"
#include "cli/progress_bar.h"
#include "cli/socket_folder.h"
#include "cli/start_plan.h"
#include "cli/supervisor.h"
#include "common/base/address.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/rpc/credentials.h"

namespace tandem {
namespace {

// The one thing a signal handler can reach.
std::atomic<Supervisor*> signal_supervisor = nullptr;

void OnStopSignal(int) {
  if (Supervisor* supervisor = signal_supervisor.load()) supervisor->RequestStop();
}

void InstallSignalHandlers(Supervisor* supervisor) {
  signal_supervisor = supervisor;
  std::signal(SIGINT, supervisor != nullptr ? OnStopSignal : SIG_DFL);
  std::signal(SIGTERM, supervisor != nullptr ? OnStopSignal : SIG_DFL);
  std::signal(SIGHUP, SIG_IGN);
}

// What the processes have said, for the lines that a person reads.
class ServeReport {
 public:
  void OnEvent(const ProcessEvent& event) {
    switch (event.kind) {
      case ProcessEvent::Kind::kProgress:
        if (!was_ready_) bar_.Update(event.process, event.done_bytes, event.total_bytes);
        break;
      case ProcessEvent::Kind::kReady:
        if (!event.grpc_address.empty()) grpc_address_ = event.grpc_address;
        if (!event.metrics_address.empty()) metrics_address_ = event.metrics_address;
        if (was_ready_ && event.grpc_address.empty()) {
          std::fprintf(stderr, "ready  %s is back\n", event.process.c_str());
        } else if (was_ready_) {  // on another port where any was asked for
          std::fprintf(stderr, "ready  gateway is back, grpc %s · metrics http://%s/metrics\n",
                       grpc_address_.c_str(), metrics_address_.c_str());
        }
        break;
      case ProcessEvent::Kind::kError:
        if (was_ready_) std::fprintf(stderr, "error  %s\n", event.message.c_str());
        break;
      case ProcessEvent::Kind::kHung:
        break;  // its death is told
      case ProcessEvent::Kind::kDied:
        std::fprintf(stderr, "lost   %s; restarting it\n", event.message.c_str());
        break;
    }
  }

  void PrintReady(absl::Duration took, const rpc::ServerSecurity& security) {
    was_ready_ = true;
    std::fprintf(stderr, "ready  grpc %s · metrics http://%s/metrics · %.1f s\n",
                 grpc_address_.c_str(), metrics_address_.c_str(), absl::ToDoubleSeconds(took));
    const std::string address = AddressToCall(grpc_address_);
    const std::string endpoint =
        address == "127.0.0.1:50051" ? "" : absl::StrCat(" --endpoint ", address);
    const bool is_open = security.tls.is_empty() && !rpc::IsLocalAddress(address);
    const char* tls = is_open                   ? " --insecure"
                      : security.tls.is_empty() ? ""
                      : security.tls.ca.empty()
                          ? " --tls-ca CA.pem"
                          : " --tls-ca CA.pem --tls-cert C.pem --tls-key K.pem";
    std::fprintf(stderr, "try    tandem generate%s%s --chat --prompt \"Write a haiku\"\n",
                 endpoint.c_str(), tls);
  }

 private:
  ProgressBar bar_;
  bool was_ready_ = false;
  std::string grpc_address_;
  std::string metrics_address_;
};

// The service for both workers on a GPU, where it can be had; says which it is.
absl::StatusOr<std::unique_ptr<MpsServer>> StartMps(const ServeOptions& options,
                                                    const std::string& socket_dir) {
  std::unique_ptr<MpsServer> none;
  if (options.device == "cpu") return none;
  if (const char* folder = std::getenv("CUDA_MPS_PIPE_DIRECTORY");
      folder != nullptr && options.mps == "auto") {
    std::fprintf(stderr, "mps    the machine's, in %s\n", folder);
    return none;
  }
  if (options.mps == "off") {
    std::fprintf(stderr, "mps    off: target and draft take turns on the GPU\n");
    return none;
  }
  absl::StatusOr<std::unique_ptr<MpsServer>> server = MpsServer::Start(socket_dir);
  if (server.ok()) {
    std::fprintf(stderr, "mps    on, a private one in %s/mps\n", socket_dir.c_str());
    return server;
  }
  if (options.mps == "on") return server.status();
  std::fprintf(stderr, "mps    off, target and draft take turns on the GPU: %s\n",
               std::string(server.status().message()).c_str());
  return none;
}

int Serve(const ServeOptions& options, const StartPlan& plan, absl::Time started_at) {
  absl::StatusOr<std::unique_ptr<MpsServer>> mps = StartMps(options, plan.resolved.socket_dir);
  if (!mps.ok()) return Fail(kExitMemory, mps.status());
  int exit_code = kExitOk;
  ServeReport report;
  const SupervisorOptions supervision = {.stop_timeout = SupervisorOptions().stop_timeout +
                                                         absl::Seconds(options.drain_timeout_s)};
  Supervisor supervisor(supervision, MakeProcessSpecs(options, plan.resolved),
                        [&report](const ProcessEvent& event) { report.OnEvent(event); });
  InstallSignalHandlers(&supervisor);
  const absl::Status status = supervisor.StartAndWaitReady(absl::Minutes(30));
  if (status.ok()) {
    report.PrintReady(SteadyNow() - started_at, options.security);
    exit_code = supervisor.Run();
  } else if (!absl::IsCancelled(status)) {
    exit_code = Fail(static_cast<ExitCode>(supervisor.exit_code()), status);
  }
  InstallSignalHandlers(nullptr);
  return exit_code;
}

// What would end the gateway once the models are loaded, told before; and flags without effect.
absl::Status CheckFlags(const ServeOptions& options) {
  const char* of_gpu = options.vram_budget_bytes > 0 ? "--vram-budget"
                       : options.quantize_to_nf4     ? "--nf4"
                                                     : nullptr;
  if (options.device == "cpu" && of_gpu != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(of_gpu, " is for a GPU: leave it out, or give --device cuda"));
  }
  RETURN_IF_ERROR(CheckAddress("--listen", options.listen));
  if (!ParseHostPort(options.metrics_listen).has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--metrics-listen is '", options.metrics_listen, "', not host:port"));
  }
  return rpc::CheckServerSecurity(options.listen, options.security);
}

}  // namespace

int RunServe(const ServeOptions& options) {
  std::signal(SIGPIPE, SIG_IGN);  // whoever reads our log may go at any time
  const absl::Time started_at = SteadyNow();
  if (absl::Status status = CheckFlags(options); !status.ok()) return Fail(kExitUsage, status);
  absl::StatusOr<StartPlan> plan = MakeStartPlan(options);
  if (!plan.ok()) return Fail(ExitCodeOfPlan(plan.status()), plan.status());
  std::fprintf(stderr, "%s", plan->ToString().c_str());
  if (options.dry_run) return kExitOk;
  const absl::StatusOr<SocketFolder> folder = SocketFolder::Make(options.socket_dir);
  if (!folder.ok()) return Fail(SocketFolder::ExitCodeOf(folder.status()), folder.status());
  plan->resolved.socket_dir = folder->path();
  return Serve(options, *plan, started_at);
}

}  // namespace tandem
