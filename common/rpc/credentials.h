// Who may talk to whom: plaintext on this machine, TLS beyond it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"

namespace tandem::rpc {

// PEM files; empty paths: none. `certificate` is the chain, the own one first.
struct TlsFiles {
  std::string certificate;
  std::string key;
  // Of a server: clients must show a certificate that these sign (mTLS). Of a client: who
  // signs servers; the system's roots without.
  std::string ca;

  bool is_empty() const { return certificate.empty() && key.empty() && ca.empty(); }
};

struct ServerSecurity {
  TlsFiles tls;
  bool allow_plaintext = false;  // --insecure: also beyond this machine
};

struct ChannelSecurity {
  TlsFiles tls;
  bool use_tls = false;          // with the system's roots; implied by files
  bool allow_plaintext = false;  // as above
};

// Whether nobody but this machine reaches `address`: "unix:/path", "localhost:1",
// "127.x.y.z:1" or "[::1]:1". Other names are not looked up.
bool IsLocalAddress(const std::string& address);

// Credentials to listen on `address`. INVALID_ARGUMENT naming the flag when plaintext would
// leave the machine, or only one of certificate and key is given; NOT_FOUND or
// PERMISSION_DENIED for a file, INVALID_ARGUMENT for one that is no PEM, whose key belongs
// to another certificate, or that has expired. Files are read once: restart to renew.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const std::string& address, const ServerSecurity& security);

// Credentials to call `address`; errors as above.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(
    const std::string& address, const ChannelSecurity& security);

}  // namespace tandem::rpc
