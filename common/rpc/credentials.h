// Who may talk to whom: plaintext on this machine, TLS beyond it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/security.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"

namespace tandem::rpc {

// Credentials to listen on `address`. INVALID_ARGUMENT naming the flag when plaintext would
// leave the machine, or only one of certificate and key is given; NOT_FOUND or
// PERMISSION_DENIED for a file, INVALID_ARGUMENT for one that is no PEM, whose key belongs
// to another certificate, or that has expired. Files are looked at again every
// `refresh_interval` (of whole seconds): new connections get what they hold then.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const std::string& address, const ServerSecurity& security,
    absl::Duration refresh_interval = absl::Seconds(60));

// The errors that MakeServerCredentials would have.
absl::Status CheckServerSecurity(const std::string& address, const ServerSecurity& security);

// Credentials to call `address`; errors as above.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(
    const std::string& address, const ChannelSecurity& security);

}  // namespace tandem::rpc
