#include "common/rpc/set_up.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/telemetry/log.h"
#include "google/protobuf/stubs/logging.h"
#include "grpc/grpc.h"
#include "grpc/support/log.h"

namespace tandem::rpc {
namespace {

// gRPC's own lines go where ours go; most of them are of use to nobody.
void LogOfGrpc(gpr_log_func_args* args) { LogDebug(absl::StrCat("grpc: ", args->message)); }

// So do Protobuf's, which has one for each request that is no message.
void LogOfProtobuf(google::protobuf::LogLevel, const char*, int, const std::string& message) {
  LogDebug(absl::StrCat("protobuf: ", message));
}

bool SetUpOnce() {
  gpr_set_log_function(LogOfGrpc);
  google::protobuf::SetLogHandler(LogOfProtobuf);
  // The last grpc_shutdown of gRPC 1.51 now and then waits 10 s for a poller that nobody wakes,
  // and the process is about to end anyway.
  grpc_init();
  return true;
}

}  // namespace

void SetUpRpc() {
  static const bool is_set_up = SetUpOnce();
  (void)is_set_up;
}

}  // namespace tandem::rpc
