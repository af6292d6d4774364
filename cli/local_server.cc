#include "cli/local_server.h"

#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/progress_bar.h"
#include "cli/start_plan.h"

namespace tandem {

absl::StatusOr<std::unique_ptr<LocalServer>> LocalServer::Start(ServeOptions options,
                                                                int* exit_code) {
  options.log_level = "warn";
  absl::StatusOr<StartPlan> plan = MakeStartPlan(options);
  if (!plan.ok()) {
    *exit_code = ExitCodeOfPlan(plan.status());
    return plan.status();
  }
  auto server = std::unique_ptr<LocalServer>(new LocalServer());
  absl::StatusOr<SocketFolder> folder = SocketFolder::Make("");
  if (!folder.ok()) {
    *exit_code = SocketFolder::ExitCodeOf(folder.status());
    return folder.status();
  }
  server->sockets_.emplace(*std::move(folder));
  plan->resolved.socket_dir = server->sockets_->path();
  server->endpoint_ = absl::StrCat("unix:", server->sockets_->path(), "/gateway.sock");
  options.listen = server->endpoint_;
  options.metrics_listen = "127.0.0.1:0";

  auto bar = std::make_shared<ProgressBar>();
  server->supervisor_ = std::make_unique<Supervisor>(
      SupervisorOptions{}, MakeProcessSpecs(options, plan->resolved),
      [bar](const ProcessEvent& event) {
        if (event.kind == ProcessEvent::Kind::kProgress) {
          bar->Update(event.process, event.done_bytes, event.total_bytes);
        }
      });
  // The children die with the thread that started them: one thread does all.
  std::promise<absl::Status> ready;
  std::future<absl::Status> is_ready = ready.get_future();
  server->thread_ = std::thread([supervisor = server->supervisor_.get(), &ready] {
    const absl::Status status = supervisor->StartAndWaitReady(absl::Minutes(10));
    const bool is_ok = status.ok();
    ready.set_value(status);
    if (is_ok) supervisor->Run();
  });
  if (absl::Status status = is_ready.get(); !status.ok()) {
    *exit_code = server->supervisor_->exit_code();
    return status;
  }
  return server;
}

LocalServer::~LocalServer() {
  if (supervisor_ != nullptr) supervisor_->RequestStop();
  if (thread_.joinable()) thread_.join();
}

}  // namespace tandem
