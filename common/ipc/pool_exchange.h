// The shared page pool between processes: made by the target, mapped by the others.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/ipc/device_pages.h"
#include "common/ipc/fd_exchange.h"
#include "common/ipc/shared_memory.h"
#include "common/kv/pool_control.h"

namespace tandem {

// A mapped pool: control block and, unless only that was asked for, the pages. The
// memory lives as long as somebody maps it: a target that died leaves it to its peers,
// but the restarted one makes a new pool with a new epoch. Movable.
class SharedPool {
 public:
  // `device` is borrowed and needed when geometry.page_memory is kDevice; `only` as in
  // MakeProbedPages.
  static absl::StatusOr<SharedPool> Create(const PoolGeometry& geometry,
                                           PagesDevice* device = nullptr,
                                           const PagesTransport* only = nullptr);
  // From a peer's descriptor, see SharedMemory::Map and PoolControlView::Open. Pages on a
  // device are not opened.
  static absl::StatusOr<SharedPool> Map(OwnedFd fd, bool map_pages);

  PoolControlView& control() { return control_; }
  const PoolControlView& control() const { return control_; }
  const PoolGeometry& geometry() const { return control_.geometry(); }
  // Page 0, on the host or on the device; nullptr when only the control block is mapped.
  uint8_t* pages() const { return pages_; }
  int fd() const { return memory_.fd(); }

  // Of pages on a device: nullptr else.
  DevicePages* device_pages() const { return device_pages_.get(); }
  int device_fd() const { return device_fd_.get(); }  // -1 unless kFileDescriptor
  // How they are shared; what went wrong where a draft has pages of its own instead.
  PagesTransport transport() const { return transport_; }
  const std::string& transport_note() const { return transport_note_; }

 private:
  friend class PoolClient;

  SharedMemory memory_;
  PoolControlView control_;
  uint8_t* pages_ = nullptr;
  std::unique_ptr<DevicePages> device_pages_;
  OwnedFd device_fd_;
  PagesTransport transport_ = PagesTransport::kSplit;
  std::string transport_note_;
};

// Hands a pool out, on a thread of its own, until destroyed.
class PoolServer {
 public:
  // `pool` is borrowed. Errors as FdListener::Listen.
  static absl::StatusOr<std::unique_ptr<PoolServer>> Start(const std::string& path,
                                                           const SharedPool* pool,
                                                           int64_t allowed_uid = -1);
  ~PoolServer();
  const std::string& path() const { return listener_->path(); }

 private:
  PoolServer() = default;
  void Serve();
  // Hears what a client found of pages on a device, and answers.
  void AnswerReport(const FdClient& client);

  std::unique_ptr<FdListener> listener_;
  const SharedPool* pool_ = nullptr;
  std::thread thread_;
};

struct PoolConnectOptions {
  std::string path;
  int64_t epoch = 0;      // ABORTED when the pool there has another; 0 takes any
  bool map_pages = true;  // false: the control block only (the gateway)
  // To open pages on a device, borrowed; nullptr: this process runs on the host.
  PagesDevice* device = nullptr;
  absl::Duration timeout = absl::Seconds(5);
};

// Maps the pool that is handed out at `path`; errors as ConnectFds and SharedPool::Map.
// FAILED_PRECONDITION when the pages are on a device and we are on none or another one, or
// the other way round. Pages on a device are probed both ways; where that fails, this process
// gets pages of its own, and transport_note() says why.
absl::StatusOr<SharedPool> ConnectPool(const PoolConnectOptions& options);

}  // namespace tandem
