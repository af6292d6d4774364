#include "common/ipc/pool_exchange.h"

#include <sys/socket.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/ipc/device_diagnosis.h"
#include "common/ipc/fd_messages.h"

namespace tandem {
namespace {

// For a client that may have to wait for its device; its death is noticed at once.
constexpr absl::Duration kReportTimeout = absl::Seconds(5);

}  // namespace

absl::StatusOr<SharedPool> SharedPool::Create(const PoolGeometry& geometry, PagesDevice* device,
                                              const PagesTransport* only) {
  ASSIGN_OR_RETURN(const int64_t bytes, PoolControlView::TotalBytes(geometry));
  SharedPool pool;
  ASSIGN_OR_RETURN(pool.memory_, SharedMemory::Create("tandem-kv-pool", bytes));
  ASSIGN_OR_RETURN(pool.control_, PoolControlView::Create(pool.memory_.memory(), geometry));
  if (geometry.page_memory == PageMemory::kHost) {
    pool.pages_ = pool.memory_.memory().data() + pool.control_.pages_offset();
    return pool;
  }
  if (device == nullptr) return absl::InternalError("pages on a device, and no device");
  ASSIGN_OR_RETURN(MadePages made, MakeProbedPages(*device, geometry, only));
  pool.control_.SetDevicePages(made.handle);
  pool.pages_ = made.pages->base();
  pool.device_pages_ = std::move(made.pages);
  pool.device_fd_ = std::move(made.fd);
  pool.transport_ = static_cast<PagesTransport>(made.handle.transport);
  return pool;
}

absl::StatusOr<SharedPool> SharedPool::Map(OwnedFd fd, bool map_pages) {
  SharedPool pool;
  ASSIGN_OR_RETURN(pool.memory_, SharedMemory::Map(std::move(fd), 0));
  ASSIGN_OR_RETURN(pool.control_,
                   PoolControlView::Open(pool.memory_.memory(), pool.memory_.file_bytes()));
  if (pool.geometry().page_memory == PageMemory::kDevice) return pool;
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
    std::vector<int> fds = {pool_->fd()};
    if (pool_->device_fd() >= 0) fds.push_back(pool_->device_fd());
    const bool sent = SendFds(*client, absl::OkStatus(), epoch, fds).ok();
    if (sent && pool_->geometry().page_memory == PageMemory::kDevice) AnswerReport(*client);
  }
}

void PoolServer::AnswerReport(const FdClient& client) {
  internal::PagesReport report;
  const absl::Status heard = internal::ReceiveMessage(
      client.connection.get(), &report, sizeof(report), SteadyNow() + kReportTimeout, nullptr);
  if (!heard.ok() || report.magic != internal::kFdMagic) return;
  const absl::Status found = CheckProbe(*pool_->device_pages(), pool_->geometry().pages_bytes(),
                                        ProbeHalf::kOpener, report.probe);
  SendFds(client, found, pool_->geometry().epoch, {}).IgnoreError();
}

// What a client does with pages on a device, once it has the control block.
class PoolClient {
 public:
  PoolClient(SharedPool& pool, FdGrant& grant, PagesDevice& device, absl::Time deadline)
      : pool_(pool), grant_(grant), device_(device), deadline_(deadline) {}

  absl::Status OpenPages() {
    DevicePagesHandle handle = pool_.control_.device_pages();  // a copy: the peer may write
    if (handle.num_bytes != pool_.geometry().pages_bytes() + kProbeBytes) {
      return absl::DataLossError(absl::StrCat("the pool's pages are of ", handle.num_bytes,
                                              " bytes, its geometry says ",
                                              pool_.geometry().pages_bytes() + kProbeBytes));
    }
    if (std::memcmp(handle.device_uuid, device_.uuid().data(), device_.uuid().size()) != 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("the pool is on another GPU than this worker's ", device_.name(),
                       ": give target and draft the same --device"));
    }
    pool_.transport_ = static_cast<PagesTransport>(handle.transport);
    if (pool_.transport_ != PagesTransport::kSplit) {
      const absl::Status shared = OpenAndProbe(handle);
      if (shared.ok()) return shared;
      pool_.device_pages_.reset();
      pool_.transport_note_ =
          absl::StrCat("cannot share device memory with the target (",
                       PagesTransportName(pool_.transport_), "): ", shared.message(), "; ",
                       DiagnoseSharing(GatherSharingFacts(PeerPid(), device_.name())));
      handle.transport = static_cast<int32_t>(PagesTransport::kSplit);
      pool_.transport_ = PagesTransport::kSplit;
    }
    ASSIGN_OR_RETURN(pool_.device_pages_, device_.Open(handle, OwnedFd()));
    pool_.pages_ = pool_.device_pages_->base();
    return absl::OkStatus();
  }

 private:
  absl::Status OpenAndProbe(const DevicePagesHandle& handle) {
    OwnedFd fd = grant_.fds.size() > 1 ? std::move(grant_.fds[1]) : OwnedFd();
    ASSIGN_OR_RETURN(pool_.device_pages_, device_.Open(handle, std::move(fd)));
    DevicePages& pages = *pool_.device_pages_;
    const int64_t pages_bytes = pool_.geometry().pages_bytes();
    RETURN_IF_ERROR(CheckProbe(pages, pages_bytes, ProbeHalf::kMaker, handle.probe));
    const uint64_t seed = ~handle.probe;
    RETURN_IF_ERROR(WriteProbe(pages, pages_bytes, ProbeHalf::kOpener, seed));
    const internal::PagesReport report = {.magic = internal::kFdMagic, .probe = seed};
    RETURN_IF_ERROR(internal::SendMessage(grant_.connection.get(), &report, sizeof(report), {}));
    internal::FdReply reply;
    RETURN_IF_ERROR(internal::ReceiveMessage(grant_.connection.get(), &reply, sizeof(reply),
                                             deadline_, nullptr));
    reply.message[sizeof(reply.message) - 1] = '\0';
    if (reply.magic != internal::kFdMagic) return absl::DataLossError("no answer to the probe");
    if (reply.status_code != 0) return absl::DataLossError(reply.message);
    pool_.pages_ = pages.base();
    return absl::OkStatus();
  }

  pid_t PeerPid() const {
    ucred peer = {};
    socklen_t size = sizeof(peer);
    getsockopt(grant_.connection.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size);
    return peer.pid;
  }

  SharedPool& pool_;
  FdGrant& grant_;
  PagesDevice& device_;
  absl::Time deadline_;
};

absl::StatusOr<SharedPool> ConnectPool(const PoolConnectOptions& options) {
  const absl::Time deadline = SteadyNow() + options.timeout;
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
  if (!options.map_pages) return pool;
  const bool on_device = pool.geometry().page_memory == PageMemory::kDevice;
  if (on_device != (options.device != nullptr)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the target's pages are in ", on_device ? "device" : "host",
                     " memory, this worker runs on the ", on_device ? "CPU" : "GPU",
                     ": start both with the same --device"));
  }
  if (on_device) {
    RETURN_IF_ERROR(PoolClient(pool, grant, *options.device, deadline).OpenPages());
  }
  return pool;
}

}  // namespace tandem
