// The gRPC server of a worker: one unix socket, few threads.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/grpcpp.h"

namespace tandem::worker {

// The largest message that a worker takes or sends.
inline constexpr int kMaxMessageBytes = 4 << 20;

// Listens until destroyed; with grpc.health.v1, NOT_SERVING until SetServing.
class WorkerServer {
 public:
  // `service` is borrowed. `listen` is "unix:/path", whose socket gets mode 0600; a stale
  // one is replaced, so the caller holds a lock on the path. UNAVAILABLE when it cannot.
  static absl::StatusOr<std::unique_ptr<WorkerServer>> Start(const std::string& listen,
                                                             grpc::Service* service);
  ~WorkerServer();

  void SetServing(bool is_serving);

 private:
  std::unique_ptr<grpc::Server> server_;
};

// The same code and message; absl and gRPC number them alike.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace tandem::worker
