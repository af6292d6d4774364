// What gRPC and Protobuf need once in a process that serves.
#pragma once

namespace tandem::rpc {

// Sends the libraries' own lines to the log (level debug) and keeps gRPC up until the process
// ends. Call before the first server is built; any thread, any number of times.
void SetUpRpc();

}  // namespace tandem::rpc
