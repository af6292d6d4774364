#include "common/ipc/pool_exchange.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace tandem {

absl::StatusOr<SharedPool> SharedPool::Create(const PoolGeometry& geometry) {
  ASSIGN_OR_RETURN(const int64_t bytes, PoolControlView::TotalBytes(geometry));
  SharedPool pool;
  ASSIGN_OR_RETURN(pool.memory_, SharedMemory::Create("tandem-kv-pool", bytes));
  ASSIGN_OR_RETURN(pool.control_, PoolControlView::Create(pool.memory_.memory(), geometry));
  pool.pages_ = pool.memory_.memory().data() + pool.control_.pages_offset();
  return pool;
}

absl::StatusOr<SharedPool> SharedPool::Map(OwnedFd fd, bool map_pages) {
  SharedPool pool;
  ASSIGN_OR_RETURN(pool.memory_, SharedMemory::Map(std::move(fd), 0));
  ASSIGN_OR_RETURN(pool.control_,
                   PoolControlView::Open(pool.memory_.memory(), pool.memory_.file_bytes()));
  if (map_pages) {
    pool.pages_ = pool.memory_.memory().data() + pool.control_.pages_offset();
    return pool;
  }
  // Once more, the control block alone: pages that are not mapped cannot be written.
  OwnedFd again(dup(pool.fd()));
  if (!again.is_open()) return absl::ResourceExhaustedError("out of file descriptors");
  const int64_t control_bytes = pool.control_.pages_offset();
  SharedPool control_only;
  ASSIGN_OR_RETURN(control_only.memory_, SharedMemory::Map(std::move(again), control_bytes));
  ASSIGN_OR_RETURN(control_only.control_, PoolControlView::Open(control_only.memory_.memory(),
                                                                control_only.memory_.file_bytes()));
  return control_only;
}

absl::StatusOr<std::unique_ptr<PoolServer>> PoolServer::Start(const std::string& path,
                                                              const SharedPool* pool,
                                                              int64_t allowed_uid) {
  std::unique_ptr<PoolServer> server(new PoolServer());
  ASSIGN_OR_RETURN(server->listener_, FdListener::Listen({.path = path,
                                                          .kind = FdKind::kPool,
                                                          .fingerprint = PoolFingerprint(),
                                                          .allowed_uid = allowed_uid}));
  server->pool_ = pool;
  server->thread_ = std::thread([raw = server.get()] { raw->Serve(); });
  return server;
}

PoolServer::~PoolServer() {
  if (listener_ != nullptr) listener_->Stop();
  if (thread_.joinable()) thread_.join();
}

void PoolServer::Serve() {
  const int64_t epoch = pool_->geometry().epoch;
  while (true) {
    const absl::StatusOr<FdClient> client = listener_->Accept();
    if (!client.ok()) return;
    // The descriptors are the client's from here on: a failed send is its loss alone.
    if (client->wanted_epoch != 0 && client->wanted_epoch != epoch) {
      SendFds(*client,
              absl::AbortedError(absl::StrCat("the pool's epoch is ", epoch, ", not ",
                                              client->wanted_epoch,
                                              ": the target was restarted, ask it again")),
              epoch, {})
          .IgnoreError();
      continue;
    }
    SendFds(*client, absl::OkStatus(), epoch, {pool_->fd()}).IgnoreError();
  }
}

absl::StatusOr<SharedPool> ConnectPool(const PoolConnectOptions& options) {
  ASSIGN_OR_RETURN(FdGrant grant, ConnectFds({.path = options.path,
                                              .kind = FdKind::kPool,
                                              .fingerprint = PoolFingerprint(),
                                              .wanted_epoch = options.epoch,
                                              .timeout = options.timeout}));
  ASSIGN_OR_RETURN(SharedPool pool, SharedPool::Map(std::move(grant.fds[0]), options.map_pages));
  if (pool.geometry().epoch != grant.epoch) {
    return absl::DataLossError(
        absl::StrCat("the pool says epoch ", pool.geometry().epoch, ", its server ", grant.epoch));
  }
  return pool;
}

}  // namespace tandem
