// tandem-target: the worker that runs the large model and holds the page pool.
#include <utility>

#include "common/ipc/path_lock.h"
#include "common/rpc/worker/worker_server.h"
#include "common/worker/model_loader.h"
#include "common/worker/ring_server.h"
#include "common/worker/worker_process.h"
#include "services/target/target_service.h"
#include "services/target/target_worker.h"

namespace {

using namespace tandem;  // NOLINT(google-build-using-namespace): main only

int RunTarget(const worker::WorkerOptions& options) {
  worker::StopWaiter stop;
  const auto lock = LockPath(options.socket_path());
  if (!lock.ok()) return worker::PrintError(worker::kExitSocket, lock.status());
  target::TargetService service;
  auto server = worker::WorkerServer::Start(options.listen, &service);
  if (!server.ok()) return worker::PrintError(worker::kExitSocket, server.status());

  std::unique_ptr<worker::RingServer> ring_server;
  if (options.use_ring) {
    auto started = worker::RingServer::Start(
        options.ring_socket_path(), options.allowed_uid,
        [&service](std::unique_ptr<StepRing> ring) { service.ServeRing(std::move(ring)); },
        /*is_on_cpu=*/options.cuda_device < 0);
    if (!started.ok()) return worker::PrintError(worker::kExitSocket, started.status());
    ring_server = *std::move(started);
  }

  auto model = worker::LoadModel(options, worker::PrintProgress);
  if (!model.ok()) {
    return worker::PrintError(worker::ExitCodeOfLoad(model.status()), model.status());
  }
  auto target = target::TargetWorker::Create(options, *std::move(model));
  if (!target.ok()) {
    return worker::PrintError(worker::ExitCodeOfStart(target.status()), target.status());
  }
  service.SetEngine((*target)->engine(), (*target)->info());
  (*server)->SetServing(true);
  stop.Arm();
  worker::PrintReady(options, (*target)->info().weight_bytes, (*target)->pool_bytes());
  stop.Wait();
  (*server)->SetServing(false);
  service.Stop();
  ring_server.reset();
  server->reset();
  return worker::kExitOk;
}

}  // namespace

int main(int argc, char** argv) {
  worker::PrepareProcess();
  return worker::RunWorker(Role::kTarget, argc, argv, RunTarget);
}
